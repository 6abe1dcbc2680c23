"""Listing tasks, enqueueing them, and asking for their status and result."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import httpx
import msgspec
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.scripts import NewProgress
from tests.gateway.problem import ENQUEUE, problem_in, stored

# --- GET /api/v1/tasks/ ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/tasks/", "/api/v1/tasks"])
async def test_list_names_every_task_and_queue(gateway: httpx.AsyncClient, path: str) -> None:
    answer = await gateway.get(path)

    assert answer.status_code == 200
    listed = answer.json()
    assert listed.keys() == {"available_tasks", "total_count", "queues", "tasks"}
    assert listed["queues"]["system"] == ["system_health_check", "cleanup_temp_files"]
    assert listed["queues"]["load_test"] == [
        "cpu_intensive_task",
        "io_simulation_task",
        "memory_operations_task",
        "failure_testing_task",
        "noop_task",
        "load_test_orchestrator",
    ]
    assert listed["queues"]["media"] == []
    assert listed["available_tasks"] == sorted({name for names in listed["queues"].values() for name in names})
    assert listed["total_count"] == len(listed["available_tasks"])
    assert {(task["queue"], task["name"]) for task in listed["tasks"]} == {
        (queue, name) for queue, names in listed["queues"].items() for name in names
    }


async def test_list_describes_a_task_with_the_schema_of_its_arguments(gateway: httpx.AsyncClient) -> None:
    tasks = {task["name"]: task for task in (await gateway.get("/api/v1/tasks/")).json()["tasks"]}

    io = tasks["io_simulation_task"]
    assert io["summary"].startswith("Waits the way network calls do")
    assert (io["timeout_seconds"], io["max_tries"]) == (60, 3)
    assert io["arguments"]["properties"]["delay_ms"] == {
        "description": "wait of one operation in ms, 0 to 60 000, give or take 20 %. Default 100.",
        "type": "integer",
        "minimum": 0,
        "maximum": 60_000,
        "default": 100,
    }
    assert io["arguments"]["additionalProperties"] is False
    assert tasks["send_email"]["arguments"]["required"] == ["user_id"]
    assert tasks["keep_anything"]["arguments"]["additionalProperties"] is True
    address = tasks["print_label"]["arguments"]
    assert address["properties"]["address"] == {"$ref": "#/$defs/Address"}
    assert address["$defs"]["Address"]["required"] == ["street", "zip_code"]


# --- POST /api/v1/tasks/enqueue -------------------------------------------------------------------


async def enqueue(gateway: httpx.AsyncClient, **request: Any) -> dict[str, Any]:
    answer = await gateway.post(ENQUEUE, json=request)
    assert answer.status_code == 202, answer.text
    enqueued: dict[str, Any] = answer.json()
    return enqueued


async def body_of(redis: AegisRedis, task_id: str) -> dict[str, Any]:
    raw = await redis.get(keys.job(task_id))
    assert raw is not None
    body: dict[str, Any] = msgspec.json.decode(raw)
    return body


async def test_seeds_request_is_accepted_and_stored(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    seed = b'{"task_name": "io_simulation_task", "queue_type": "load_test"}'
    answer = await gateway.post(ENQUEUE, content=seed, headers={"Content-Type": "application/json"})

    assert answer.status_code == 202
    enqueued = answer.json()
    task_id = enqueued["task_id"]
    assert answer.headers["location"] == f"/api/v1/tasks/status/{task_id}"
    assert enqueued.keys() == {
        "task_id",
        "task_name",
        "queue_type",
        "queued_at",
        "estimated_start",
        "message",
        "event_id",
    }
    assert (enqueued["task_name"], enqueued["queue_type"]) == ("io_simulation_task", "load_test")
    assert enqueued["estimated_start"] == enqueued["queued_at"]
    queued_at = datetime.fromisoformat(enqueued["queued_at"])
    assert abs(datetime.now(UTC) - queued_at) < timedelta(seconds=30)
    assert await redis.zscore("arq:queue:load_test", task_id) == queued_at.timestamp() * 1000
    body = await body_of(redis, task_id)
    assert body == {"t": None, "f": "io_simulation_task", "a": [], "k": {}, "et": queued_at.timestamp() * 1000}


async def test_event_of_the_answer_is_in_the_stream(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    enqueued = await enqueue(gateway, task_name="cleanup_temp_files", queue_type="system")

    event_id = enqueued["event_id"]
    ((_, fields),) = await redis.xrange(keys.EVENTS, min=event_id, max=event_id)
    assert fields[b"kind"] == b"job.enqueued"
    assert fields[b"job_id"] == enqueued["task_id"].encode()
    assert fields[b"queue"] == b"system"
    assert fields[b"task"] == b"cleanup_temp_files"


async def test_location_leads_to_the_status(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task"})
    followed = await gateway.get(answer.headers["location"])
    assert followed.status_code == 200
    assert followed.json()["task_id"] == answer.json()["task_id"]


@pytest.mark.parametrize("task_id", ["order-17", "a:b@c", "50%", "100%25", "what?", "a#b", "a&b=c", "~*'();,$!+"])
async def test_location_of_a_chosen_id_leads_to_its_status(gateway: httpx.AsyncClient, task_id: str) -> None:
    answer = await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task", "task_id": task_id})

    assert answer.status_code == 202
    assert unquote(answer.headers["location"]) == f"/api/v1/tasks/status/{task_id}"
    followed = await gateway.get(answer.headers["location"])
    assert (followed.status_code, followed.json()["task_id"]) == (200, task_id)


async def test_queue_may_be_left_out(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    enqueued = await enqueue(gateway, task_name="cleanup_temp_files")
    assert enqueued["queue_type"] == "system"
    assert await redis.zscore("arq:queue:system", enqueued["task_id"]) is not None


async def test_keyword_arguments_are_stored(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    enqueued = await enqueue(gateway, task_name="io_simulation_task", kwargs={"delay_ms": 50, "operations": 3})
    body = await body_of(redis, enqueued["task_id"])
    assert (body["a"], body["k"]) == ([], {"delay_ms": 50, "operations": 3})


async def test_arguments_by_position_are_stored(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    enqueued = await enqueue(gateway, task_name="send_email", args=[7, "news"], kwargs={"urgent": True})
    body = await body_of(redis, enqueued["task_id"])
    assert (body["a"], body["k"]) == ([7, "news"], {"urgent": True})


async def test_structured_arguments_are_stored_by_value(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    address = {"street": "Main", "zip_code": 123}
    enqueued = await enqueue(gateway, task_name="print_label", kwargs={"address": address, "copies": [1, 2]})
    assert (await body_of(redis, enqueued["task_id"]))["k"] == {"address": address, "copies": [1, 2]}


async def test_null_stands_for_left_out(gateway: httpx.AsyncClient) -> None:
    optional = ["queue_type", "delay_seconds", "run_at", "expires_seconds", "task_id"]
    enqueued = await enqueue(gateway, task_name="io_simulation_task", **dict.fromkeys(optional))
    assert enqueued["estimated_start"] == enqueued["queued_at"]


async def test_delay_makes_the_job_deferred(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    enqueued = await enqueue(gateway, task_name="io_simulation_task", delay_seconds=90.5)

    start = datetime.fromisoformat(enqueued["estimated_start"])
    assert start - datetime.fromisoformat(enqueued["queued_at"]) == timedelta(seconds=90.5)
    assert await redis.zscore("arq:queue:load_test", enqueued["task_id"]) == start.timestamp() * 1000
    assert "0:01:30.5" in enqueued["message"]
    ((_, fields),) = await redis.xrange(keys.EVENTS)
    assert fields[b"kind"] == b"job.deferred"
    status = (await gateway.get(f"/api/v1/tasks/status/{enqueued['task_id']}")).json()
    assert status["status"] == "deferred"


async def test_run_at_is_an_instant_in_any_zone(gateway: httpx.AsyncClient) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    elsewhere = at.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:45").tzinfo)
    enqueued = await enqueue(gateway, task_name="io_simulation_task", run_at=elsewhere.isoformat())
    assert datetime.fromisoformat(enqueued["estimated_start"]) == at


@pytest.mark.parametrize("run_at", ["2001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
async def test_run_at_in_the_past_means_now(gateway: httpx.AsyncClient, redis: AegisRedis, run_at: str) -> None:
    enqueued = await enqueue(gateway, task_name="io_simulation_task", run_at=run_at)
    assert enqueued["estimated_start"] == enqueued["queued_at"]
    ((_, fields),) = await redis.xrange(keys.EVENTS)
    assert fields[b"kind"] == b"job.enqueued"


async def test_expiry_becomes_the_life_of_the_body(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    limited = await enqueue(gateway, task_name="io_simulation_task", expires_seconds=60)
    unlimited = await enqueue(gateway, task_name="io_simulation_task")
    assert 50_000 < await redis.pttl(keys.job(limited["task_id"])) <= 60_000
    assert await redis.pttl(keys.job(unlimited["task_id"])) == -1


async def test_second_job_with_a_chosen_id_is_refused(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    enqueued = await enqueue(gateway, task_name="io_simulation_task", task_id="order-17", kwargs={"delay_ms": 1})
    assert enqueued["task_id"] == "order-17"
    before = await stored(redis)

    again = await gateway.post(ENQUEUE, json={"task_name": "cleanup_temp_files", "task_id": "order-17"})

    problem = problem_in(again, 409, "duplicate_job")
    assert problem["task_id"] == "order-17"
    assert "order-17" in problem["detail"]
    assert await stored(redis) == before


async def test_id_of_a_kept_result_is_taken(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await redis.set(keys.result("done"), result_of(id="done"), ex=60)
    again = await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task", "task_id": "done"})
    problem_in(again, 409, "duplicate_job")
    assert await redis.get(keys.job("done")) is None


async def test_content_type_may_name_a_charset(gateway: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    answer = await gateway.post(ENQUEUE, content=b'{"task_name": "io_simulation_task"}', headers=headers)
    assert answer.status_code == 202


# --- GET /api/v1/tasks/status/{task_id} and /result/{task_id} -------------------------------------


ENQUEUED_AT_MS = 1_700_000_000_000


def result_of(**changes: Any) -> bytes:
    """A result as a worker of ours stores it."""
    result = {
        "t": 2,
        "f": "io_simulation_task",
        "a": [],
        "k": {},
        "et": ENQUEUED_AT_MS,
        "s": True,
        "r": {"operations": 2},
        "st": ENQUEUED_AT_MS + 1000,
        "ft": ENQUEUED_AT_MS + 2500,
        "q": "arq:queue:load_test",
        "id": "job",
    }
    return msgspec.json.encode({**result, **changes})


STATUS_FIELDS = {
    "task_id",
    "status",
    "task_name",
    "queue_type",
    "attempt",
    "result_available",
    "error",
    "progress",
    "enqueue_time",
    "start_time",
    "finish_time",
    "event_id",
}


async def test_queued_job(gateway: httpx.AsyncClient) -> None:
    enqueued = await enqueue(gateway, task_name="io_simulation_task")

    status = await gateway.get(f"/api/v1/tasks/status/{enqueued['task_id']}")
    result = await gateway.get(f"/api/v1/tasks/result/{enqueued['task_id']}")

    assert status.status_code == 200
    assert status.json() == {
        "task_id": enqueued["task_id"],
        "status": "queued",
        "task_name": "io_simulation_task",
        "queue_type": "load_test",
        "attempt": 0,
        "result_available": False,
        "error": None,
        "progress": None,
        "enqueue_time": enqueued["queued_at"],
        "start_time": None,
        "finish_time": None,
        "event_id": enqueued["event_id"],
    }
    assert result.status_code == 202
    assert result.json() == {"task_id": enqueued["task_id"], "status": "queued"}


async def test_job_that_a_stock_worker_runs_is_in_progress(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    task_id = (await enqueue(gateway, task_name="io_simulation_task"))["task_id"]
    await redis.set(keys.in_progress(task_id), b"1", px=60_000)  # as arq 0.28 does
    await redis.set(keys.retry(task_id), b"2", ex=60)

    status = (await gateway.get(f"/api/v1/tasks/status/{task_id}")).json()
    result = await gateway.get(f"/api/v1/tasks/result/{task_id}")

    assert (status["status"], status["attempt"], status["result_available"]) == ("in_progress", 2, False)
    assert (result.status_code, result.json()["status"]) == (202, "in_progress")


async def test_running_job_tells_its_progress(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    task_id = (await enqueue(gateway, task_name="io_simulation_task"))["task_id"]
    await redis.set(keys.in_progress(task_id), b"1", px=60_000)
    await redis.set(keys.retry(task_id), b"1", ex=60)
    report = NewProgress(task_id, "1", "io_simulation_task", 1, b'{"current":30,"total":100}')
    await redis.scripts.progress("load_test", worker="w", reports=[report])

    status = (await gateway.get(f"/api/v1/tasks/status/{task_id}")).json()

    assert status["progress"] == {"current": 30, "total": 100}


async def test_succeeded_job(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await redis.set(keys.result("job"), result_of(), ex=60)

    status = (await gateway.get("/api/v1/tasks/status/job")).json()
    result = await gateway.get("/api/v1/tasks/result/job")

    assert status.keys() == STATUS_FIELDS
    assert (status["status"], status["result_available"], status["error"]) == ("succeeded", True, None)
    assert (status["task_name"], status["queue_type"], status["attempt"]) == ("io_simulation_task", "load_test", 2)
    assert (status["enqueue_time"], status["start_time"], status["finish_time"]) == (
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:21Z",
        "2023-11-14T22:13:22.500000Z",
    )
    assert result.status_code == 200
    assert result.json() == {"task_id": "job", "status": "succeeded", "result": {"operations": 2}}


async def test_result_that_is_null_is_told(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await redis.set(keys.result("job"), result_of(r=None), ex=60)
    result = await gateway.get("/api/v1/tasks/result/job")
    assert result.json() == {"task_id": "job", "status": "succeeded", "result": None}


async def test_failed_job_shows_its_error_and_no_traceback(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    secret = 'Traceback (most recent call last):\n  File "/srv/secret.py", line 1'
    failure = {"type": "IntendedFailure", "message": "on purpose", "traceback": secret}
    await redis.set(keys.result("job"), result_of(s=False, r=failure), ex=60)

    status = await gateway.get("/api/v1/tasks/status/job")
    result = await gateway.get("/api/v1/tasks/result/job")

    error = {"type": "IntendedFailure", "message": "on purpose"}
    assert (status.json()["status"], status.json()["error"]) == ("failed", error)
    assert result.status_code == 200
    assert result.json() == {"task_id": "job", "status": "failed", "error": error}
    for answer in (status, result):
        assert "Traceback" not in answer.text
        assert "secret" not in answer.text


async def test_aborted_job(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    failure = {"type": "CancelledError", "message": "", "traceback": ""}
    await redis.set(keys.result("job"), result_of(s=False, r=failure), ex=60)
    result = await gateway.get("/api/v1/tasks/result/job")
    assert (result.status_code, result.json()["status"]) == (200, "aborted")
    assert (await gateway.get("/api/v1/tasks/status/job")).json()["status"] == "aborted"


@pytest.mark.parametrize("raw", [b"\x80\x04\x95N.", b"not json", b"{}", b"[]", b"\xff"])
@pytest.mark.parametrize("route", ["status", "result"])
async def test_result_of_another_codec_is_not_read(
    gateway: httpx.AsyncClient, redis: AegisRedis, route: str, raw: bytes
) -> None:
    await redis.set(keys.result("job"), raw, ex=60)
    problem_in(await gateway.get(f"/api/v1/tasks/{route}/job"), 502, "undecodable_payload")


async def test_queued_job_of_another_codec_is_not_read(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await redis.set(keys.job("job"), b"\x80\x04\x95N.", ex=60)
    await redis.zadd("arq:queue:system", {"job": 1})
    problem = problem_in(await gateway.get("/api/v1/tasks/status/job"), 502, "undecodable_payload")
    assert "pickle" in problem["detail"]


@pytest.mark.parametrize("route", ["status", "result"])
@pytest.mark.parametrize(
    ("path", "task_id"),
    [
        ("0190f5fe7c9d7b3b8c1f3a6d2e4b5c6d", "0190f5fe7c9d7b3b8c1f3a6d2e4b5c6d"),
        ("%00", "\0"),
        ("a%20b", "a b"),
        ("%0D%0ASet-Cookie:%20a=b", "\r\nSet-Cookie: a=b"),
        ("%2E%2E", ".."),
        ("%25", "%"),
        ("*", "*"),
        ("%F0%9F%A6%84", "🦄"),
        ("é", "é"),
        ("x" * 60_000, "x" * 2000 + "…"),
    ],
)
async def test_id_that_does_not_exist_is_not_found(
    gateway: httpx.AsyncClient, route: str, path: str, task_id: str
) -> None:
    problem = problem_in(await gateway.get(f"/api/v1/tasks/{route}/{path}"), 404, "job_not_found")
    assert problem["task_id"] == task_id


@pytest.mark.parametrize("route", ["status", "result"])
@pytest.mark.parametrize("path", ["%FF", "%ED%A0%80", "a%2Fb", "a/b", ""])
async def test_id_that_cannot_be_one_is_not_found(gateway: httpx.AsyncClient, route: str, path: str) -> None:
    answer = await gateway.get(f"/api/v1/tasks/{route}/{path}")
    problem_in(answer, 404, answer.json()["code"])


# --- the routes themselves ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ENQUEUE),
        ("PUT", ENQUEUE),
        ("POST", "/api/v1/tasks/"),
        ("DELETE", "/api/v1/tasks/status/job"),
        ("POST", "/api/v1/tasks/result/job"),
        ("POST", "/health"),
    ],
)
async def test_wrong_method_is_told(gateway: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await gateway.request(method, path)
    problem_in(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/v1", "/api/v2/tasks/", "/api/v1/tasks/nothing"])
async def test_unknown_route_is_not_found(gateway: httpx.AsyncClient, path: str) -> None:
    problem_in(await gateway.get(path), 404, "not_found")
