"""Enqueueing with an idempotency key, in a trace, and in batches; the rest is in test_task_routes.py."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.catalog import Catalog
from bridge.gateway.app import create_app
from bridge.settings import Settings
from tests.gateway.guarded import Guarded
from tests.gateway.problem import ENQUEUE, JSON, problem_in, stored

BATCH = f"{ENQUEUE}/batch"
IO = {"task_name": "io_simulation_task", "kwargs": {"delay_ms": 5, "operations": 1}}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def post(gateway: httpx.AsyncClient, request: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.post(ENQUEUE, json=IO if request is None else request, headers=named)


async def traces(redis: AegisRedis) -> list[str]:
    return [fields.get(b"trace", b"").decode() for _, fields in await redis.xrange(keys.EVENTS)]


# --- Idempotency-Key ------------------------------------------------------------------------------


async def test_repeated_request_gets_the_same_answer(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    first = await post(gateway, Idempotency_Key='"order 17"')
    assert (first.status_code, first.headers.get("Idempotency-Replayed")) == (202, None)
    before = await stored(redis)
    again = await post(gateway, Idempotency_Key='"order 17"')
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await stored(redis) == before


async def test_quotes_around_a_key_make_no_difference(gateway: httpx.AsyncClient) -> None:
    first = await post(gateway, Idempotency_Key="8e03978e-40d5-43dd-bc93-6894a57f9324")
    again = await post(gateway, Idempotency_Key=' "8e03978e-40d5-43dd-bc93-6894a57f9324" ')
    assert again.json() == first.json()


async def test_another_body_with_the_key_is_refused(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await post(gateway, Idempotency_Key="k")
    before = await stored(redis)
    refused = await post(gateway, {"task_name": "io_simulation_task"}, Idempotency_Key="k")
    problem_in(refused, 422, "idempotency_key_reused")
    assert await stored(redis) == before


async def test_refused_request_does_not_use_the_key_up(gateway: httpx.AsyncClient) -> None:
    problem_in(await post(gateway, {"task_name": "none"}, Idempotency_Key="k"), 400, "invalid_task_name")
    assert (await post(gateway, Idempotency_Key="k")).status_code == 202


async def test_requests_at_the_same_moment_store_one_job(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    answers = await asyncio.gather(*(post(gateway, Idempotency_Key="k") for _ in range(10)))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert await redis.zcard(keys.queue("load_test")) == 1


@pytest.mark.parametrize(
    "key",
    [
        "",
        " ",
        '""',
        "a b",
        'a"b',
        '"a',
        'a"',
        '"a"b"',
        '"a\\b"',
        '"a";x=1',
        "a,b",
        "ü",
        "\x7f",
        "x" * 256,
        f'"{"x" * 256}"',
    ],
)
async def test_what_is_no_key_is_refused(gateway: httpx.AsyncClient, redis: AegisRedis, key: str) -> None:
    answer = await gateway.post(ENQUEUE, json=IO, headers=[(b"idempotency-key", key.encode())])
    problem = problem_in(answer, 400, "invalid_request")
    assert problem["path"] == "Idempotency-Key"
    assert "Idempotency-Key" in problem["detail"]
    assert await redis.dbsize() == 0


@pytest.mark.parametrize("key", ["x", "a:b/c=", "x" * 255, f'"{"x" * 255}"', '"a, b; c"', r'"say \"hello\" \\"', "(1)"])
async def test_what_is_a_key_is_taken(gateway: httpx.AsyncClient, key: str) -> None:
    first = await post(gateway, Idempotency_Key=key)
    assert first.status_code == 202
    assert (await post(gateway, Idempotency_Key=key)).json() == first.json()


async def test_two_keys_are_refused(gateway: httpx.AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    problem_in(await gateway.post(ENQUEUE, json=IO, headers=headers), 400, "invalid_request")


async def test_callers_have_keys_of_their_own(
    tmp_path: Path, catalog: Catalog, redis: AegisRedis, valkey_url: str
) -> None:
    guarded = Guarded(tmp_path, catalog)
    tokens = {name: guarded.token("tasks:write", name=name) for name in ("ann", "bob")}
    async with guarded.gateway(redis_url=valkey_url) as client:
        answers = [
            await post(client, Idempotency_Key="k", Authorization=f"Bearer {tokens[name]}")
            for name in ("ann", "bob", "ann")
        ]
    ids = [answer.json()["task_id"] for answer in answers]
    assert ids[0] == ids[2] != ids[1]


# --- strict ---------------------------------------------------------------------------------------


async def test_arguments_may_be_text_only_if_the_query_says_so(gateway: httpx.AsyncClient) -> None:
    as_text = {"task_name": "io_simulation_task", "kwargs": {"delay_ms": "5"}}
    for query, status in (("", 400), ("?strict=true", 400), ("?strict=false", 202), ("?x=1&strict=false", 202)):
        assert (await gateway.post(ENQUEUE + query, json=as_text)).status_code == status
    problem = problem_in(await gateway.post(f"{ENQUEUE}?strict=no", json=as_text), 400, "invalid_request")
    assert problem["path"] == "strict"


# --- traceparent ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (TRACE, TRACE),
        (f"  {TRACE} ", TRACE),
        (TRACE.replace("00-", "cc-", 1) + "-what-may-come", TRACE),
        (TRACE.replace("00-", "01-", 1), TRACE),
        (f"{TRACE}-more", ""),
        (f"{TRACE}0", ""),
        (TRACE.replace("00-", "ff-", 1), ""),
        (TRACE.upper(), ""),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", ""),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", ""),
        ('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"', ""),
        ("", ""),
        ("nonsense", ""),
    ],
)
async def test_valid_traceparent_is_passed_on(
    gateway: httpx.AsyncClient, redis: AegisRedis, sent: str, kept: str
) -> None:
    answer = await post(gateway, traceparent=sent)
    assert answer.status_code == 202
    assert await traces(redis) == [kept]


async def test_without_a_traceparent_there_is_no_trace(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await post(gateway)
    assert await traces(redis) == [""]


# --- POST /api/v1/tasks/enqueue/batch --------------------------------------------------------------


async def test_array_gets_a_verdict_for_each_item(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    answer = await gateway.post(BATCH, json=[IO, {"task_name": "io_simulation_task", "kwargs": {"delay": 1}}, IO, 3])
    assert answer.status_code == 202
    told = answer.json()
    assert (told["enqueued"], told["duplicates"], told["refused"]) == (2, 0, 2)
    assert [one["status"] for one in told["items"]] == ["enqueued", "refused", "enqueued", "refused"]
    assert told["items"][1] == {
        "index": 1,
        "status": "refused",
        "error": {
            "code": "invalid_arguments",
            "detail": "io_simulation_task: there is no argument 'delay'; did you mean 'delay_ms'? - at $.kwargs.delay",
            "path": "$.kwargs.delay",
        },
    }
    ids = {one["task_id"].encode() for one in told["items"] if one["status"] == "enqueued"}
    assert set(await redis.zrange(keys.queue("load_test"), 0, -1)) == ids


@pytest.mark.parametrize(
    "media_type", ["application/x-ndjson", "application/jsonl", "Application/X-NDJSON; charset=utf-8"]
)
async def test_lines_that_cannot_be_read_harm_no_others(gateway: httpx.AsyncClient, media_type: str) -> None:
    line = msgspec.json.encode(IO)
    lines = [line, b'{"task_name": "io_sim', b"", line + b"\r", b"\xff", b"[" * 5000, b"   ", line]
    answer = await gateway.post(BATCH, content=b"\n".join(lines) + b"\n", headers={"Content-Type": media_type})
    assert answer.status_code == 202
    told = answer.json()["items"]
    assert [one["index"] for one in told] == [0, 1, 2, 3, 4, 5], "blank lines do not count"
    assert [one["status"] for one in told] == ["enqueued", "refused", "enqueued", "refused", "refused", "enqueued"]
    assert {one["error"]["code"] for one in told if "error" in one} == {"invalid_request"}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[", b"[1,]", b"7", b"null", b'[{"task_name":]', b"[" * 100_000, b"\xff"]
)
async def test_what_is_no_array_is_refused_as_a_whole(
    gateway: httpx.AsyncClient, redis: AegisRedis, body: bytes
) -> None:
    problem_in(await gateway.post(BATCH, content=body, headers=JSON), 400, "invalid_request")
    assert await redis.dbsize() == 0


@pytest.mark.parametrize(("content", "media_type"), [(b"[]", "application/json"), (b"\n", "application/jsonl")])
async def test_empty_batch_is_one(gateway: httpx.AsyncClient, content: bytes, media_type: str) -> None:
    answer = await gateway.post(BATCH, content=content, headers={"Content-Type": media_type})
    assert (answer.status_code, answer.json()["items"]) == (202, [])


async def test_too_many_items_are_refused(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    answer = await gateway.post(BATCH, content=b"[" + b"1," * 10_000 + b"1]", headers=JSON)
    assert "10000" in problem_in(answer, 400, "invalid_request")["detail"]
    assert await redis.dbsize() == 0


async def test_batch_has_a_limit_of_its_own(catalog: Catalog) -> None:
    settings = Settings(redis_url="memory://", max_body_bytes=200, max_batch_bytes=1000)
    own_redis = open_redis(settings)
    app: Any = create_app(settings, catalog, own_redis)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        assert (await client.post(BATCH, json=[IO] * 5)).json()["enqueued"] == 5
        too_large = problem_in(await client.post(BATCH, json=[IO] * 50), 413, "request_too_large")
        assert too_large["limit_bytes"] == 1000
        assert "AEGIS_MAX_BATCH_BYTES" in too_large["detail"]
    await own_redis.aclose(close_connection_pool=True)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_batch_of_another_media_type_is_refused(gateway: httpx.AsyncClient, media_type: str) -> None:
    answer = await gateway.post(BATCH, content=b"[]", headers={"Content-Type": media_type})
    problem_in(answer, 415, "unsupported_media_type")


async def test_lines_are_for_batches_alone(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(ENQUEUE, content=b"{}", headers={"Content-Type": "application/jsonl"})
    problem_in(answer, 415, "unsupported_media_type")


async def test_batch_does_not_pretend_to_heed_an_idempotency_key(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post(BATCH, json=[IO], headers={"Idempotency-Key": "k"})
    assert problem_in(answer, 400, "invalid_request")["path"] == "Idempotency-Key"


async def test_batch_passes_its_trace_on(gateway: httpx.AsyncClient, redis: AegisRedis) -> None:
    await gateway.post(BATCH, json=[IO, IO], headers={"traceparent": TRACE})
    assert await traces(redis) == [TRACE, TRACE]


# --- how the body comes -----------------------------------------------------------------------------


async def test_body_may_come_in_pieces(gateway: httpx.AsyncClient) -> None:
    async def pieces() -> Any:
        for byte in msgspec.json.encode(IO):
            yield bytes([byte])

    answer = await gateway.post(ENQUEUE, content=pieces(), headers=JSON)
    assert answer.status_code == 202


@pytest.mark.parametrize("length", ["", "x", "-1", "5", "9999999999999999999999"])
async def test_wrong_length_is_no_fault_of_ours(gateway: httpx.AsyncClient, length: str) -> None:
    answer = await gateway.post(ENQUEUE, content=msgspec.json.encode(IO), headers={**JSON, "Content-Length": length})
    assert answer.status_code in {202, 400, 413}
