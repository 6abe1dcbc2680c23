"""Queues, their jobs, their workers; pause and resume."""

from typing import Any

import httpx
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.scripts import Heartbeat
from tests.gateway.problem import ENQUEUE, problem_in, stored
from tests.gateway.stored_jobs import bury, store_result

QUEUES = "/api/v1/queues"
NAMES = ["system", "load_test", "media", "mail"]


async def enqueue(gateway: httpx.AsyncClient, *job_ids: str, **request: Any) -> str:
    for job_id in job_ids:
        answer = await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task", "task_id": job_id, **request})
        assert answer.status_code == 202
    event_id: str = answer.json()["event_id"]
    return event_id


async def listed(gateway: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = await gateway.get(f"{QUEUES}/load_test/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["task_id"] for job in answer.json()["jobs"]]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_queues_with_the_event_that_is_counted_in(
    gateway: httpx.AsyncClient, redis: AegisRedis, slash: str
) -> None:
    assert (await gateway.get(f"{QUEUES}{slash}")).json()["event_id"] == "0-0"
    event_id = await enqueue(gateway, "a", "b")
    await bury(redis, "c")
    answer = (await gateway.get(f"{QUEUES}{slash}")).json()
    assert answer.keys() == {"queues", "event_id"}
    assert answer["event_id"] == event_id
    assert [queue["name"] for queue in answer["queues"]] == NAMES
    assert [(queue["queued"], queue["dead"], queue["workers"]) for queue in answer["queues"]] == [
        (0, 0, 0),
        (2, 1, 0),
        (0, 0, 0),
        (0, 0, 0),
    ]


async def test_one_queue(gateway: httpx.AsyncClient) -> None:
    await enqueue(gateway, "a", delay_seconds=60)
    answer = await gateway.get(f"{QUEUES}/load_test")
    assert (answer.json()["name"], answer.json()["deferred"]) == ("load_test", 1)
    assert answer.json() in (await gateway.get(QUEUES)).json()["queues"] or answer.json()["recent"]


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("GET", "/jobs"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("GET", "/dead"),
        ("POST", "/dead/retry"),
        ("POST", "/dead/purge"),
    ],
)
async def test_address_of_a_queue_that_there_is_not(gateway: httpx.AsyncClient, method: str, rest: str) -> None:
    body = {"all": True} if rest.startswith("/dead/") else None
    answer = await gateway.request(method, f"{QUEUES}/nope{rest}", json=body)
    assert problem_in(answer, 404, "invalid_queue_type")["available_queues"] == NAMES


async def test_jobs_by_state_and_page(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await enqueue(gateway, "a", "b", "c")
    await enqueue(gateway, "later", delay_seconds=60)
    await redis.set(keys.in_progress("b"), b"1", px=60_000)
    await bury(redis, "failed")
    assert await listed(gateway) == ["b", "a", "c", "later"]
    assert await listed(gateway, state="queued") == ["a", "c"]
    assert await listed(gateway, state="deferred") == ["later"]
    assert await listed(gateway, state="in_progress") == ["b"]
    assert await listed(gateway, state="failed") == ["failed"]
    assert await listed(gateway, state="succeeded") == []

    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await gateway.get(f"{QUEUES}/load_test/jobs", params={"limit": 1, "cursor": cursor})).json()
        found += [job["task_id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
    assert found == ["b", "a", "c", "later"]


async def test_what_a_list_tells_of_a_job(gateway: httpx.AsyncClient) -> None:
    await enqueue(gateway, "a")
    (job,) = (await gateway.get(f"{QUEUES}/load_test/jobs")).json()["jobs"]
    enqueued_at = job.pop("enqueue_time")
    assert enqueued_at.endswith("Z")
    assert job == {
        "task_id": "a",
        "status": "queued",
        "task_name": "io_simulation_task",
        "attempt": 0,
        "due_at": enqueued_at,
        "finished_at": None,
    }


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("state=running", "state"),
        ("state=", "state"),
        ("state=Queued", "state"),
        ("cursor=x", "cursor"),
        ("cursor=%00%FF", "cursor"),
        ("cursor=" + "a" * 7000, "cursor"),
    ],
)
async def test_parameter_that_is_none_is_named(gateway: httpx.AsyncClient, query: str, path: str) -> None:
    problem = problem_in(await gateway.get(f"{QUEUES}/load_test/jobs?{query}"), 400, "invalid_request")
    assert problem["path"] == path
    assert path in problem["detail"]


async def test_pause_and_resume(gateway: httpx.AsyncClient) -> None:
    for verb, is_paused, changed in (
        ("pause", True, True),
        ("pause", True, False),
        ("resume", False, True),
        ("resume", False, False),
    ):
        answer = await gateway.post(f"{QUEUES}/load_test/{verb}")
        assert answer.status_code == 200
        assert answer.json() == {"queue": "load_test", "paused": is_paused, "changed": changed}
        message = (await gateway.get(f"{QUEUES}/load_test")).json()["message"]
        assert (message == "paused") is is_paused


async def test_who_paused_is_told(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await gateway.post(f"{QUEUES}/load_test/pause")
    ((_, fields),) = await redis.xrange(keys.EVENTS)
    assert (fields[b"kind"], fields[b"data"]) == (b"queue.paused", b'{"by":"anonymous"}')


async def test_workers_with_the_event_from_which_to_follow(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    assert (await gateway.get("/api/v1/workers")).json() == {"workers": [], "event_id": "0-0"}
    sign = Heartbeat("vm", 7, "mail", 10, "BatchWorker", 3, 5, 1, 0)
    await redis.scripts.heartbeat("vm:7:a", sign)
    answer = (await gateway.get("/api/v1/workers/")).json()
    ((event_id, _),) = await redis.xrange(keys.EVENTS)
    assert answer["event_id"] == event_id.decode()
    (worker,) = answer["workers"]
    assert (worker["id"], worker["queue"], worker["running"], worker["done"]) == ("vm:7:a", "mail", 3, 5)
    queues = {queue["name"]: queue["workers"] for queue in (await gateway.get(QUEUES)).json()["queues"]}
    assert queues == {"system": 0, "load_test": 0, "media": 0, "mail": 1}


@pytest.mark.parametrize(
    "path", ["/health", "/api/v1/queues", "/api/v1/queues/nope", "/nothing", "/api/v1/tasks/", "/api/v1/tasks/status/a"]
)
async def test_head_is_get_without_its_body(gateway: httpx.AsyncClient, redis: AegisRedis, path: str) -> None:
    await store_result(redis, "a", 1)
    head, get = await gateway.head(path), await gateway.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    if "queues" not in path:
        assert head.headers["content-length"] == get.headers["content-length"]


async def test_head_changes_nothing(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    before = await stored(redis)
    problem = await gateway.head(f"{QUEUES}/load_test/pause")
    assert (problem.status_code, set(problem.headers["allow"].split(", "))) == (405, {"OPTIONS", "POST"})
    assert await stored(redis) == before


async def test_wrong_method_names_those_that_are_right(gateway: httpx.AsyncClient) -> None:
    problem = problem_in(await gateway.get(f"{QUEUES}/load_test/pause"), 405, "method_not_allowed")
    assert sorted(problem["allowed"]) == ["OPTIONS", "POST"]


@pytest.mark.parametrize("path", ["/schema/nope", "/schema/nope.json", "/schema/nope/nope"])
async def test_page_that_the_docs_do_not_have_is_a_problem(gateway: httpx.AsyncClient, path: str) -> None:
    problem_in(await gateway.get(path), 404, "not_found")
