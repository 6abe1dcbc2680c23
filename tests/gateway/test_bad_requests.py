"""What a caller can get wrong: each has its clear answer, and nothing is enqueued."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from bridge.aegis_redis import AegisRedis
from bridge.nesting import DEEPEST
from tests.gateway.problem import ENQUEUE, JSON, problem_in, stored

IO = "io_simulation_task"


@pytest.fixture
async def nothing_is_enqueued(gateway: httpx.AsyncClient, redis: AegisRedis) -> AsyncIterator[None]:
    """One job is there before the test, and still the only one after it: no other key has come or changed."""
    answer = await gateway.post(ENQUEUE, json={"task_name": IO, "task_id": "earlier"})
    assert answer.status_code == 202
    before = await stored(redis)
    assert {"arq:queue:load_test", "arq:job:earlier", "aegis:events"} <= before.keys()
    yield
    assert await stored(redis) == before


pytestmark = pytest.mark.usefixtures("nothing_is_enqueued")


# --- tasks and queues -----------------------------------------------------------------------------


async def test_unknown_task(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(ENQUEUE, json={"task_name": "io_simulation"})
    problem = problem_in(answer, 400, "invalid_task_name")
    assert "io_simulation" in problem["detail"]
    assert IO in problem["available_tasks"]
    assert "cleanup_temp_files" in problem["available_tasks"]


@pytest.mark.parametrize("queue", ["nope", "", "System", "arq:queue:system"])
async def test_unknown_queue(gateway: httpx.AsyncClient, queue: str) -> None:
    answer = await gateway.post(ENQUEUE, json={"task_name": IO, "queue_type": queue})
    problem = problem_in(answer, 400, "invalid_queue_type")
    assert repr(queue) in problem["detail"]
    assert problem["available_queues"] == ["system", "load_test", "media", "mail"]


async def test_task_that_the_queue_does_not_have(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(ENQUEUE, json={"task_name": IO, "queue_type": "system"})
    problem = problem_in(answer, 400, "invalid_task_name")
    assert "'system'" in problem["detail"]
    assert problem["available_tasks"] == ["system_health_check", "cleanup_temp_files"]


async def test_queue_without_tasks(gateway: httpx.AsyncClient) -> None:
    problem = problem_in(
        await gateway.post(ENQUEUE, json={"task_name": IO, "queue_type": "media"}), 400, "invalid_task_name"
    )
    assert problem["detail"].endswith("tasks: none")


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "path", "detail"),
    [
        ({"task_name": IO, "kwargs": {"delay": 5}}, "$.kwargs.delay", "did you mean 'delay_ms'?"),
        ({"task_name": IO, "kwargs": {"zzz": 5}}, "$.kwargs.zzz", "it takes delay_ms, operations, file_bytes"),
        ({"task_name": IO, "kwargs": {"delay_ms": "soon"}}, "$.kwargs.delay_ms", "expected `int`, got `str`"),
        ({"task_name": IO, "kwargs": {"delay_ms": "5"}}, "$.kwargs.delay_ms", "expected `int`, got `str`"),
        ({"task_name": IO, "kwargs": {"delay_ms": 1.5}}, "$.kwargs.delay_ms", "expected `int`"),
        ({"task_name": IO, "kwargs": {"delay_ms": None}}, "$.kwargs.delay_ms", "expected `int`, got `null`"),
        ({"task_name": IO, "kwargs": {"delay_ms": -1}}, "$.kwargs.delay_ms", ">= 0"),
        ({"task_name": IO, "kwargs": {"delay_ms": 10**30}}, "$.kwargs.delay_ms", "<= 60000"),
        ({"task_name": IO, "kwargs": {"": 1}}, "$.kwargs.", "there is no argument ''"),
        ({"task_name": IO, "args": [5]}, "$.args[0]", "at most 0 positional arguments"),
        ({"task_name": "send_email"}, "$.kwargs.user_id", "argument 'user_id' is missing"),
        ({"task_name": "send_email", "args": ["seven"]}, "$.args[0]", "expected `int`, got `str`"),
        ({"task_name": "send_email", "args": [7, "news", True]}, "$.args[2]", "at most 2 positional arguments"),
        ({"task_name": "send_email", "args": [7], "kwargs": {"user_id": 8}}, "$.kwargs.user_id", "given twice"),
        (
            {"task_name": "print_label", "kwargs": {"address": {"street": "Main", "zip_code": "x"}}},
            "$.kwargs.address.zip_code",
            "expected `int`, got `str`",
        ),
        (
            {"task_name": "print_label", "args": [{"street": "Main", "zip_code": 1}, [1, "x"]]},
            "$.args[1][1]",
            "expected `int`, got `str`",
        ),
        ({"task_name": "remind", "kwargs": {"at": "tomorrow"}}, "$.kwargs.at", "invalid RFC3339"),
    ],
)
async def test_argument_that_the_signature_refuses(
    gateway: httpx.AsyncClient, request_: dict[str, Any], path: str, detail: str
) -> None:
    problem = problem_in(await gateway.post(ENQUEUE, json=request_), 400, "invalid_arguments")
    assert problem["path"] == path
    assert detail in problem["detail"]
    assert problem["detail"].startswith(f"{request_['task_name']}: ")


# --- the other fields of the request --------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"args": {}}, "$.args"),
        ({"args": None}, "$.args"),
        ({"kwargs": []}, "$.kwargs"),
        ({"kwargs": "{}"}, "$.kwargs"),
        ({"queue_type": 3}, "$.queue_type"),
        ({"delay_seconds": -1}, "$.delay_seconds"),
        ({"delay_seconds": "5"}, "$.delay_seconds"),
        ({"delay_seconds": 1e308}, "$.delay_seconds"),
        ({"delay_seconds": 10**400}, "$.delay_seconds"),
        ({"run_at": "2026-01-31T12:00:00"}, "$.run_at"),
        ({"run_at": "tomorrow"}, "$.run_at"),
        ({"run_at": 1_700_000_000}, "$.run_at"),
        ({"run_at": "9999-12-31T23:59:59-23:59"}, "$.run_at"),
        ({"run_at": "9999-12-31T23:59:59.999999Z"}, "$.run_at"),
        ({"expires_seconds": 0}, "$.expires_seconds"),
        ({"expires_seconds": -1}, "$.expires_seconds"),
        ({"expires_seconds": True}, "$.expires_seconds"),
        ({"task_id": ""}, "$.task_id"),
        ({"task_id": "a b"}, "$.task_id"),
        ({"task_id": "a\n"}, "$.task_id"),
        ({"task_id": "\n"}, "$.task_id"),
        ({"task_id": "a\r\nSet-Cookie: b"}, "$.task_id"),
        ({"task_id": "\0"}, "$.task_id"),
        ({"task_id": "é"}, "$.task_id"),
        ({"task_id": "🦄"}, "$.task_id"),
        ({"task_id": "x" * 201}, "$.task_id"),
        ({"task_id": 17}, "$.task_id"),
    ],
)
async def test_field_of_the_wrong_kind(gateway: httpx.AsyncClient, fields: dict[str, Any], path: str) -> None:
    answer = await gateway.post(ENQUEUE, content=msgspec.json.encode({"task_name": IO} | fields), headers=JSON)
    assert problem_in(answer, 400, "invalid_request")["path"] == path


# Such an id could be stored, but no URL leads to it: the slash ends a path segment, even percent-encoded,
# and clients remove dot segments.
@pytest.mark.parametrize("task_id", ["a/b", "/", ".", ".."])
async def test_id_that_no_url_leads_to(gateway: httpx.AsyncClient, task_id: str) -> None:
    answer = await gateway.post(ENQUEUE, json={"task_name": IO, "task_id": task_id})
    assert problem_in(answer, 400, "invalid_request")["path"] == "$.task_id"


@pytest.mark.parametrize("name", ["tusk_name", "timeout", "Task_name", ""])
async def test_unknown_field(gateway: httpx.AsyncClient, name: str) -> None:
    problem = problem_in(await gateway.post(ENQUEUE, json={"task_name": IO, name: 1}), 400, "invalid_request")
    assert f"unknown field `{name}`" in problem["detail"]


@pytest.mark.parametrize("name", [None, 3, [], {}])
async def test_task_name_that_is_no_text(gateway: httpx.AsyncClient, name: Any) -> None:
    problem = problem_in(await gateway.post(ENQUEUE, json={"task_name": name}), 400, "invalid_request")
    assert problem["path"] == "$.task_name"


@pytest.mark.parametrize("name", ["", " ", "\0", "WorkerSettings", "__class__", f"{IO}\n"])
async def test_task_name_that_is_none(gateway: httpx.AsyncClient, name: str) -> None:
    problem_in(await gateway.post(ENQUEUE, json={"task_name": name}), 400, "invalid_task_name")


async def test_long_name_is_not_sent_back_whole(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(ENQUEUE, json={"task_name": "x" * 500_000})
    problem_in(answer, 400, "invalid_task_name")
    assert len(answer.content) < 10_000


# --- bodies that are no request -------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"task_name=io_simulation_task",
        b"{",
        b'{"task_name": "io_simulation_task"',
        b'{"task_name": "io_simulation_task"} {}',
        b"{'task_name': 'io_simulation_task'}",
        b"[]",
        b'[{"task_name": "io_simulation_task"}]',
        b'"io_simulation_task"',
        b"null",
        b"3",
        b"{}",
        b'{"task_name": "io_simulation_task", "kwargs": {"delay_ms": NaN}}',
        b'{"task_name": "io_simulation_task", "delay_seconds": Infinity}',
        b'{"task_name": "io_simulation_task", "kwargs": {"delay_ms": 1e999}}',
        b'{"task_name": "io_simulation_task", "delay_seconds": -1e999}',
        b"\xff\xfe",
        b'{"task_name": "\xff"}',
        b'{"task_name": "io_simulation_task", "kwargs": {"\xff": 1}}',
        b'{"task_name": "\\ud800"}',
        b'{"task_name": "io_simulation_task", "kwargs": {"\\udfff": 1}}',
        b'{"task_name": "keep_anything", "args": ["\\ud800"]}',
        b'\xef\xbb\xbf{"task_name": "io_simulation_task"}',
        '{"task_name": "io_simulation_task"}'.encode("utf-16"),
        b'{"task_name": "io_simulation_task\n"}',
        b'{"task_name": "io_simulation_task", "kwargs": {"delay_ms": 0x10}}',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b'{"task_name": "keep_anything", "args": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"task_name": "keep_anything", "kwargs": {"a": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_002,
    ],
    ids=lambda body: repr(body[:60]),
)
async def test_body_that_is_no_request(gateway: httpx.AsyncClient, body: bytes) -> None:
    problem = problem_in(await gateway.post(ENQUEUE, content=body, headers=JSON), 400, "invalid_request")
    assert problem["path"].startswith("$")


@pytest.mark.parametrize("depth", [DEEPEST - 1, DEEPEST, 600, 900, 1000, 1100])
async def test_depth_is_bounded(gateway: httpx.AsyncClient, redis: AegisRedis, depth: int) -> None:
    """Either stored and readable, or refused: never an error of the gateway, never a job that nobody can read."""
    args = b"[" * depth + b'"[[[{{{\\"[["' + b"]" * depth  # brackets in text do not count
    body = b'{"task_name": "keep_anything", "task_id": "deep", "args": ' + args + b"}"
    answer = await gateway.post(ENQUEUE, content=body, headers=JSON)
    if depth < DEEPEST:  # the arguments are part of the job, an object
        assert answer.status_code == 202
        assert (await gateway.get("/api/v1/tasks/status/deep")).status_code == 200
        await redis.delete("arq:job:deep", "arq:queue:mail", "aegis:wake:mail", "aegis:totals:mail")
        await redis.xdel("aegis:events", answer.json()["event_id"])
    else:
        problem_in(answer, 400, answer.json()["code"])
        assert "nested" in answer.json()["detail"]


# --- size and type of the body --------------------------------------------------------------------

TWENTY_MB = 20 * 1024 * 1024


async def test_body_of_twenty_megabytes(gateway: httpx.AsyncClient) -> None:
    body = msgspec.json.encode({"task_name": IO, "kwargs": {"delay_ms": "x" * TWENTY_MB}})
    problem = problem_in(await gateway.post(ENQUEUE, content=body, headers=JSON), 413, "request_too_large")
    assert problem["limit_bytes"] == 1024 * 1024
    assert "AEGIS_MAX_BODY_BYTES" in problem["detail"]


async def test_body_in_chunks_that_does_not_say_how_long_it_is(gateway: httpx.AsyncClient) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(320):
            sent += 65_536
            yield b" " * 65_536

    answer = await gateway.post(ENQUEUE, content=chunks(), headers=JSON)
    problem_in(answer, 413, "request_too_large")
    assert sent < 2 * 1024 * 1024  # the rest is not waited for


async def test_length_that_is_over_the_limit_is_enough(gateway: httpx.AsyncClient) -> None:
    headers = {**JSON, "Content-Length": str(TWENTY_MB)}
    answer = await gateway.post(ENQUEUE, content=b'{"task_name": "io_simulation_task"}', headers=headers)
    problem_in(answer, 413, "request_too_large")


@pytest.mark.parametrize("length", ["x", "-1", ""])
async def test_length_that_is_no_length(gateway: httpx.AsyncClient, length: str) -> None:
    headers = {**JSON, "Content-Length": length}
    answer = await gateway.post(ENQUEUE, content=b'{"task_name": "nope"}', headers=headers)
    problem_in(answer, 400, answer.json()["code"])


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"],
)
async def test_body_that_is_not_declared_as_json(gateway: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await gateway.post(ENQUEUE, content=b'{"task_name": "io_simulation_task"}', headers=headers)
    assert "application/json" in problem_in(answer, 415, "unsupported_media_type")["detail"]
