"""``/health``, ``/health/ready`` and ``/health/detailed``, as they are and under ``/api/v1``."""

import platform
from typing import Any

import httpx
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from bridge import keys
from bridge.aegis_redis import AegisRedis
from tests.gateway.problem import ENQUEUE, problem_in

PREFIXES = ["", "/api/v1"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("slash", ["", "/"])
async def test_process_is_alive(gateway: httpx.AsyncClient, prefix: str, slash: str) -> None:
    answer = await gateway.get(f"{prefix}/health{slash}")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_gateway_is_ready_while_redis_answers(gateway: httpx.AsyncClient, prefix: str) -> None:
    answer = await gateway.get(f"{prefix}/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "reasons": []})


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_detailed_health_counts_the_jobs_of_each_queue(
    gateway: httpx.AsyncClient, redis: AegisRedis, prefix: str
) -> None:
    for request in ({"task_id": "a"}, {"task_id": "b"}, {"task_id": "c", "delay_seconds": 60}):
        await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task", **request})
    await redis.set(keys.in_progress("a"), b"1", px=60_000)
    await redis.set(keys.health_check("arq:queue:load_test"), "j_complete=0", ex=60)
    seconds, _ = await redis.time()
    counting: Any = redis.hincrby(keys.stats("load_test", seconds // 60), "job.failed", 3)
    await counting
    await redis.expire(keys.stats("load_test", seconds // 60), 60)

    answer = await gateway.get(f"{prefix}/health/detailed")

    assert answer.status_code == 200
    health = answer.json()
    assert health["status"] == "degraded"  # the other queues have no worker
    assert health["python"] == platform.python_version()
    assert (health["redis"]["reachable"], health["redis"]["address"], health["redis"]["reason"]) == (
        True,
        "the memory of this process",
        None,
    )
    queues = {queue["name"]: queue for queue in health["queues"]}
    assert list(queues) == ["system", "load_test", "media", "mail"]
    assert {name: queue["message"] for name, queue in queues.items()} == {
        "system": "worker offline",
        "load_test": "ready",
        "media": "no tasks defined",
        "mail": "worker offline",
    }
    load_test = queues["load_test"]
    assert (load_test["queued"], load_test["in_progress"], load_test["deferred"]) == (1, 1, 1)
    assert load_test["worker_health"] == "j_complete=0"
    assert (load_test["recent"]["failed"], load_test["recent"]["failure_rate"]) == (3, 1.0)
    assert (queues["system"]["recent"]["failed"], queues["system"]["recent"]["failure_rate"]) == (0, None)
    assert load_test["tasks"][0] == "cpu_intensive_task"


async def test_health_is_good_when_every_queue_with_tasks_has_a_worker(
    gateway: httpx.AsyncClient, redis: AegisRedis
) -> None:
    for name in ("system", "load_test", "mail"):
        await redis.set(keys.health_check(keys.queue(name)), "alive", ex=60)
    assert (await gateway.get("/health/detailed")).json()["status"] == "healthy"


async def test_redis_that_is_away_is_told(gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RedisConnectionError("Connection refused")

    monkeypatch.setattr(AegisRedis, "execute_command", refuse)

    alive = await gateway.get("/health")
    ready = await gateway.get("/health/ready")
    detailed = await gateway.get("/health/detailed")

    assert alive.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["status"] == "not ready"
    assert "Connection refused" in ready.json()["reasons"][0]
    assert (detailed.status_code, detailed.json()["status"], detailed.json()["queues"]) == (503, "down", [])
    assert detailed.json()["redis"]["reason"].endswith("does not answer: Connection refused")
    assert detailed.json()["reasons"] == [detailed.json()["redis"]["reason"]]


async def test_request_while_redis_is_away_may_be_tried_again(
    gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise RedisConnectionError("Connection refused by user:password@host")

    monkeypatch.setattr(AegisRedis, "execute_command", refuse)

    answer = await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task"})

    problem_in(answer, 503, "store_unreachable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "password" not in answer.text


async def test_redis_that_does_not_describe_itself_is_ready(
    gateway: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forbid(*_: object, **__: object) -> None:
        raise NoPermissionError("User default has no permissions to run the 'info' command")

    monkeypatch.setattr("bridge.in_memory_redis.InMemoryRedis.info", forbid)

    assert (await gateway.get("/health/ready")).status_code == 200
    detailed = await gateway.get("/health/detailed")
    assert detailed.status_code == 200
    assert detailed.json()["redis"]["reachable"] is True
    assert detailed.json()["redis"]["version"] is None
