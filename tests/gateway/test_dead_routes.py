"""Dead letters over HTTP: by filter, page by page, run again, forgotten."""

from typing import Any

import httpx
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from tests.gateway.problem import JSON, problem_in, stored
from tests.gateway.stored_jobs import bury

DEAD = "/api/v1/queues/load_test/dead"


async def listed(gateway: httpx.AsyncClient, path: str = DEAD, **query: Any) -> list[str]:
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await gateway.get(path, params={**query, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        found += [letter["task_id"] for letter in answer.json()["letters"]]
        cursor = answer.json()["next_cursor"]
    return found


@pytest.fixture
async def letters(redis: AegisRedis) -> None:
    await bury(redis, "old", age_s=3600)
    await bury(redis, "other-task", task="noop_task", age_s=60)
    await bury(redis, "other-error", error="KeyError", age_s=50)
    await bury(redis, "other-queue", queue="system", age_s=40)
    await bury(redis, "new")


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_letters_by_filter_newest_first(gateway: httpx.AsyncClient, limit: int) -> None:
    everything = ["new", "other-queue", "other-error", "other-task", "old"]
    assert await listed(gateway, "/api/v1/dead", limit=limit) == everything
    assert await listed(gateway, limit=limit) == [one for one in everything if one != "other-queue"]
    assert await listed(gateway, limit=limit, task="noop_task") == ["other-task"]
    assert await listed(gateway, limit=limit, error_type="KeyError") == ["other-error"]
    assert await listed(gateway, limit=limit, older_than_seconds=55) == ["other-task", "old"]
    assert await listed(gateway, limit=limit, newer_than_seconds=55) == ["new", "other-error"]
    assert await listed(gateway, limit=limit, ids=["old", "new", "nope"]) == ["new", "old"]
    assert await listed(gateway, "/api/v1/dead", limit=limit, ids="other-queue") == ["other-queue"]


@pytest.mark.usefixtures("letters")
async def test_letter_tells_its_traceback_when_asked(gateway: httpx.AsyncClient) -> None:
    (letter,) = (await gateway.get(f"{DEAD}?ids=new")).json()["letters"]
    assert letter.pop("failed_at").endswith("Z")
    assert letter == {
        "task_id": "new",
        "queue_type": "load_test",
        "task_name": "io_simulation_task",
        "args": [1],
        "kwargs": {"x": 2},
        "attempts": 3,
        "reason": "error",
        "error": {"type": "ValueError", "message": "no"},
        "obstacle": None,
    }
    (letter,) = (await gateway.get(f"{DEAD}?ids=new&traceback=true")).json()["letters"]
    assert letter["traceback"] == "Traceback …"


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    ("verb", "verdict", "queued"), [("retry", "requeued", [b"old", b"other-task"]), ("purge", "purged", [])]
)
async def test_letters_are_handled_by_filter(
    gateway: httpx.AsyncClient, redis: AegisRedis, verb: str, verdict: str, queued: list[bytes]
) -> None:
    answer = await gateway.post(f"{DEAD}/{verb}", json={"older_than_seconds": 55})
    assert answer.status_code == 200
    assert answer.json() == {
        "handled": [
            {"task_id": "old", "verdict": verdict, "message": ""},
            {"task_id": "other-task", "verdict": verdict, "message": ""},
        ],
        "done": 2,
        "total": 2,
        "complete": True,
        "next_cursor": None,
    }
    assert await redis.zrange(keys.queue("load_test"), 0, -1) == queued
    assert await listed(gateway) == ["new", "other-error"]
    answer = await gateway.post(f"{DEAD}/{verb}", json={"all": True})
    assert answer.json()["done"] == 2
    assert await listed(gateway, "/api/v1/dead") == ["other-queue"]


async def test_many_letters_take_several_requests(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await bury(redis, *(f"{number:04}" for number in range(1100)))
    first = (await gateway.post(f"{DEAD}/purge", json={"all": True})).json()
    assert (len(first["handled"]), first["done"], first["total"], first["complete"]) == (1000, 1000, 1100, False)
    body = {"all": True, "cursor": first["next_cursor"]}
    second = (await gateway.post(f"{DEAD}/purge", json=body)).json()
    assert (len(second["handled"]), second["done"], second["total"], second["complete"]) == (100, 1100, 1100, True)
    assert await listed(gateway) == []


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("verb", ["retry", "purge"])
@pytest.mark.parametrize(
    ("content", "path"),
    [
        (b"", "$"),
        (b"{}", "$"),
        (b'{"all": false}', "$"),
        (b'{"task": null, "ids": null}', "$"),
        (b'{"all": 1}', "$.all"),
        (b'{"everything": true}', "$"),
        (b'{"queue": "system", "all": true}', "$"),
        (b'{"task": 3}', "$.task"),
        (b'{"older_than_seconds": -1}', "$.older_than_seconds"),
        (b'{"newer_than_seconds": 1e300}', "$.newer_than_seconds"),
        (b'{"newer_than_seconds": "1"}', "$.newer_than_seconds"),
        (b'{"ids": "old"}', "$.ids"),
        (b'{"ids": [%b]}' % b",".join([b'"a"'] * 1001), "$.ids"),
        (b'{"all": true, "cursor": "x"}', "cursor"),
        (b'{"all": true, "cursor": 3}', "$.cursor"),
        (b"[]", "$"),
    ],
    ids=lambda value: repr(value[:30]),
)
async def test_filter_that_is_none_changes_nothing(
    gateway: httpx.AsyncClient, redis: AegisRedis, verb: str, content: bytes, path: str
) -> None:
    before = await stored(redis)
    answer = await gateway.post(f"{DEAD}/{verb}", content=content, headers=JSON)
    assert problem_in(answer, 400, "invalid_request")["path"] == path
    assert await stored(redis) == before


@pytest.mark.usefixtures("letters")
async def test_no_ids_are_no_letters(gateway: httpx.AsyncClient) -> None:
    answer = (await gateway.post(f"{DEAD}/purge", json={"ids": []})).json()
    assert (answer["handled"], answer["total"], answer["complete"]) == ([], 0, True)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("older_than_seconds=-1", "older_than_seconds"),
        ("older_than_seconds=nan", "older_than_seconds"),
        ("newer_than_seconds=inf", "newer_than_seconds"),
        ("newer_than_seconds=1h", "newer_than_seconds"),
        ("traceback=perhaps", "traceback"),
        ("cursor=x", "cursor"),
        ("cursor=WzEsMiwzXQ", "cursor"),
        ("&".join(["ids=a"] * 1001), "ids"),
    ],
    ids=lambda value: value[:30],
)
@pytest.mark.parametrize("address", [DEAD, "/api/v1/dead"])
async def test_parameter_that_is_none_is_named(gateway: httpx.AsyncClient, address: str, query: str, path: str) -> None:
    problem = problem_in(await gateway.get(f"{address}?{query}"), 400, "invalid_request")
    assert problem["path"] == path
    assert path in problem["detail"]
