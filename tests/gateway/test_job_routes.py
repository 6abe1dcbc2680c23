"""One job: waiting for its result, aborting it, running it again, its events."""

import asyncio
from typing import Any

import httpx
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from tests.gateway.problem import ENQUEUE, JSON, problem_in
from tests.gateway.stored_jobs import bury, store_result

TASKS = "/api/v1/tasks"
IO = "io_simulation_task"


async def enqueue(gateway: httpx.AsyncClient, task_id: str, **request: Any) -> None:
    answer = await gateway.post(ENQUEUE, json={"task_name": IO, "task_id": task_id, **request})
    assert answer.status_code == 202


# --- result and its wait --------------------------------------------------------------------------


async def test_result_of_a_job_that_has_ended_is_not_waited_for(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await store_result(redis, "a", {"answer": 42})
    answer = await gateway.get(f"{TASKS}/result/a?wait=60")
    assert (answer.status_code, answer.json()["result"]) == (200, {"answer": 42})


@pytest.mark.parametrize("wait", ["0", "0.0", "0.001", "60", "6e1"])
async def test_wait_within_its_limits(gateway: httpx.AsyncClient, redis: AegisRedis, wait: str) -> None:
    await store_result(redis, "a", None)
    assert (await gateway.get(f"{TASKS}/result/a?wait={wait}")).status_code == 200


@pytest.mark.parametrize(
    "wait", ["-1", "60.1", "1e9", "nan", "inf", "-inf", "x", "", "1,5", "0x10", "true", "1 s", "%FF"]
)
async def test_wait_that_is_none_is_refused(gateway: httpx.AsyncClient, wait: str) -> None:
    problem = problem_in(await gateway.get(f"{TASKS}/result/a?wait={wait}"), 400, "invalid_request")
    assert problem["path"] == "wait"
    assert "wait" in problem["detail"]


async def test_unknown_id_is_not_waited_for(gateway: httpx.AsyncClient) -> None:
    problem_in(await gateway.get(f"{TASKS}/result/nope?wait=60"), 404, "job_not_found")


# --- abort ----------------------------------------------------------------------------------------


async def test_abort_ends_a_waiting_job_and_tells_who_and_why(gateway: httpx.AsyncClient) -> None:
    await enqueue(gateway, "a")
    answer = await gateway.post(f"{TASKS}/a/abort", json={"reason": "sent twice"})
    assert (answer.status_code, answer.json()) == (200, {"task_id": "a", "outcome": "aborted"})
    assert (await gateway.get(f"{TASKS}/status/a")).json()["status"] == "aborted"
    *_, event = (await gateway.get(f"{TASKS}/a/events")).json()
    assert event["kind"] == "job.aborted"
    assert event["data"] == {"was": "queued", "by": "anonymous", "reason": "sent twice"}
    assert (await gateway.post(f"{TASKS}/a/abort")).json()["outcome"] == "ended"


async def test_abort_asks_the_worker_of_a_running_job(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await enqueue(gateway, "a")
    await redis.set(keys.in_progress("a"), b"vm:1:a:7", px=60_000)
    answer = await gateway.post(f"{TASKS}/a/abort")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "asked")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"reason": null}', b' {"reason": ""} '])
async def test_reason_may_be_left_out(gateway: httpx.AsyncClient, content: bytes) -> None:
    await enqueue(gateway, "a")
    headers = JSON if content else {}
    assert (await gateway.post(f"{TASKS}/a/abort", content=content, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (b"[]", "$"),
        (b"null", "$"),
        (b"{", "$"),
        (b"\xff", "$"),
        (b'{"reason": 1}', "$.reason"),
        (b'{"why": "x"}', "$"),
        (b'{"reason": "%b"}' % (b"x" * 1001), "$.reason"),
        (b"[" * 100_000, "$"),
    ],
    ids=lambda value: repr(value[:20]),
)
async def test_abort_with_a_body_that_is_none(gateway: httpx.AsyncClient, content: bytes, path: str) -> None:
    await enqueue(gateway, "a")
    answer = await gateway.post(f"{TASKS}/a/abort", content=content, headers=JSON)
    assert problem_in(answer, 400, "invalid_request")["path"] == path
    assert (await gateway.get(f"{TASKS}/status/a")).json()["status"] == "queued"


async def test_body_must_say_that_it_is_json(gateway: httpx.AsyncClient) -> None:
    await enqueue(gateway, "a")
    problem_in(await gateway.post(f"{TASKS}/a/abort", content=b"{}"), 415, "unsupported_media_type")
    body = b'{"reason": "%b"}' % (b"x" * 2_000_000)
    problem_in(await gateway.post(f"{TASKS}/a/abort", content=body, headers=JSON), 413, "request_too_large")


# --- retry ----------------------------------------------------------------------------------------


async def test_failed_job_runs_again(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await bury(redis, "a")
    answer = await gateway.post(f"{TASKS}/a/retry")
    assert (answer.status_code, answer.json()) == (200, {"task_id": "a", "queue_type": "load_test"})
    assert (await gateway.get(f"{TASKS}/status/a")).json()["status"] == "queued"
    problem = problem_in(await gateway.post(f"{TASKS}/a/retry"), 409, "retry_refused")
    assert problem["task_id"] == "a"
    assert "queued already" in problem["detail"]


@pytest.mark.parametrize("verb", ["abort", "retry"])
async def test_id_of_nobody(gateway: httpx.AsyncClient, verb: str) -> None:
    assert problem_in(await gateway.post(f"{TASKS}/nope/{verb}"), 404, "job_not_found")["task_id"] == "nope"


# --- events ---------------------------------------------------------------------------------------


async def test_events_of_a_job(gateway: httpx.AsyncClient) -> None:
    await enqueue(gateway, "a")
    await enqueue(gateway, "b")
    (event,) = (await gateway.get(f"{TASKS}/a/events")).json()
    assert (event["kind"], event["job_id"], event["queue"], event["task"]) == ("job.enqueued", "a", "load_test", IO)
    assert event["data"]["due_at_ms"] == event["at_ms"]
    assert (await gateway.get(f"{TASKS}/nope/events")).json() == []


# --- odd addresses --------------------------------------------------------------------------------

ODD = ["a%2Fb", "%FF", "%ED%A0%80", "%00", "%0A", "%2e%2e", "%F0%9F%A6%84", "x" * 8000, "{a}", "a b", "a%3Fb", "*"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd[:12])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", TASKS + "/{}/events"),
        ("POST", TASKS + "/{}/abort"),
        ("POST", TASKS + "/{}/retry"),
        ("GET", "/api/v1/queues/{}"),
        ("GET", "/api/v1/queues/{}/jobs"),
        ("POST", "/api/v1/queues/{}/pause"),
        ("POST", "/api/v1/queues/{}/dead/retry"),
    ],
)
async def test_odd_address_is_no_fault_of_the_gateway(
    gateway: httpx.AsyncClient, method: str, path: str, odd: str
) -> None:
    answer = await gateway.request(method, path.replace("{}", odd), json={"all": True} if "dead" in path else None)
    if answer.status_code != 200:
        assert answer.status_code in {400, 404, 405}
        problem_in(answer, answer.status_code, answer.json()["code"])
    else:
        assert answer.json() == []


@pytest.mark.parametrize("job_id", ["enqueue", "events", "abort", "batch"])
async def test_id_that_is_part_of_other_addresses(gateway: httpx.AsyncClient, job_id: str) -> None:
    await enqueue(gateway, job_id)
    assert (await gateway.get(f"{TASKS}/status/{job_id}")).json()["task_id"] == job_id
    assert (await gateway.post(f"{TASKS}/{job_id}/abort")).status_code == 200


async def test_many_waiters_of_jobs_that_have_ended(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await store_result(redis, "a", 1)
    answers = await asyncio.gather(*(gateway.get(f"{TASKS}/result/a?wait=60") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
