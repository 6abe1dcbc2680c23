"""A real gateway whose Redis goes away, hangs, and comes back."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.cli.processes import Command, Commands, ValkeyChild
from tests.end_to_end.serving import start_gateway
from tests.gateway.problem import ENQUEUE, problem_in

SEED = {"task_name": "io_simulation_task", "queue_type": "load_test"}
LONGEST_ANSWER_S = 8
"""One timeout of the socket (`bridge.broker`), however many requests wait, and some."""


@pytest.fixture
async def gateway(tmp_path: Path, valkey: ValkeyChild) -> AsyncIterator[tuple[Command, httpx.AsyncClient]]:
    """A gateway process on a Valkey of its own, which has a job, and a client of it."""
    commands = Commands(tmp_path, REDIS_URL=valkey.url)
    process, port = start_gateway(commands)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=LONGEST_ANSWER_S) as client:
        answer = await client.post(ENQUEUE, json={**SEED, "task_id": "earlier"})
        assert answer.status_code == 202
        yield process, client
    assert process.is_running  # it lived through all of it
    process.interrupt()
    assert process.wait(5) == 0
    commands.close()


async def assert_everything_says_that_redis_is_away(client: httpx.AsyncClient) -> None:
    requests = {
        "enqueue": client.post(ENQUEUE, json={**SEED, "task_id": "meanwhile"}),
        "status": client.get("/api/v1/tasks/status/earlier"),
        "result": client.get("/api/v1/tasks/result/earlier"),
        "health": client.get("/health"),
        "ready": client.get("/health/ready"),
        "detailed": client.get("/health/detailed"),
        "tasks": client.get("/api/v1/tasks/"),
    }
    answers = dict(zip(requests, await asyncio.gather(*requests.values()), strict=True))

    for name in ("enqueue", "status", "result"):
        problem_in(answers[name], 503, "store_unreachable")
        assert int(answers[name].headers["retry-after"]) >= 1
    assert answers["health"].status_code == 200
    assert answers["tasks"].status_code == 200
    assert answers["ready"].status_code == 503
    assert answers["ready"].json()["status"] == "not ready"
    assert "does not answer" in answers["ready"].json()["reasons"][0]
    assert answers["detailed"].status_code == 503
    assert answers["detailed"].json()["status"] == "down"


async def assert_works(client: httpx.AsyncClient) -> None:
    deadline_s = time.monotonic() + 10
    while (answer := await client.post(ENQUEUE, json={**SEED, "task_id": "later"})).status_code == 503:
        assert time.monotonic() < deadline_s, answer.text
    assert answer.status_code == 202, answer.text
    for task_id in ("earlier", "later"):
        assert (await client.get(f"/api/v1/tasks/status/{task_id}")).json()["status"] == "queued"
    assert (await client.get("/health/ready")).status_code == 200


async def test_gateway_recovers_by_itself_when_redis_is_back(
    gateway: tuple[Command, httpx.AsyncClient], valkey: ValkeyChild
) -> None:
    _, client = gateway
    valkey.kill()

    await assert_everything_says_that_redis_is_away(client)

    valkey.start()
    await assert_works(client)
    answer = await client.get("/api/v1/tasks/status/meanwhile")
    problem_in(answer, 404, "job_not_found")  # a 503 means that nothing was enqueued


async def test_redis_that_accepts_but_never_answers_is_given_up(
    gateway: tuple[Command, httpx.AsyncClient], valkey: ValkeyChild
) -> None:
    _, client = gateway
    valkey.signal(signal.SIGSTOP)

    await assert_everything_says_that_redis_is_away(client)

    valkey.signal(signal.SIGCONT)
    await assert_works(client)


async def test_connection_that_redis_dropped_meanwhile_costs_no_request(
    gateway: tuple[Command, httpx.AsyncClient], valkey: ValkeyChild
) -> None:
    """As after a restart of Redis, or its idle timeout, while nobody asked for anything."""
    _, client = gateway
    valkey.kill()
    valkey.start()

    answer = await client.post(ENQUEUE, json=SEED)

    assert answer.status_code == 202, answer.text
