"""A body that does not come is not waited for for ever; nothing else is cut short."""

import asyncio
from typing import Any

import pytest

from bridge.errors import RequestTooSlow
from bridge.gateway.slow_bodies import SlowBodies

TIMEOUT_S = 0.05


class Messages:
    """``receive`` of ASGI: these, and then nothing more."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)

    async def __call__(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop(0)
        return await asyncio.Event().wait()  # type: ignore[return-value]


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def read_body(scope: Any, receive: Any, send: Any) -> Any:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return body


@pytest.mark.parametrize("messages", [[], [part(b"a", more=True)], [part(b"a", more=True), part(b"", more=True)]])
async def test_body_that_stops_on_the_way_is_too_slow(messages: list[dict[str, Any]]) -> None:
    layer = SlowBodies(read_body, timeout_s=TIMEOUT_S)
    with pytest.raises(RequestTooSlow):
        await layer({"method": "POST"}, Messages(*messages), None)
    assert not layer.waiting
    await asyncio.sleep(0)  # the task goes on as if it had never been cancelled


async def test_body_that_comes_is_read() -> None:
    layer = SlowBodies(read_body, timeout_s=TIMEOUT_S)
    messages = Messages(part(b"a", more=True), part(b"b", more=False))
    assert await layer({"method": "POST"}, messages, None) == b"ab"
    assert not layer.waiting


async def test_what_follows_the_body_may_take_its_time() -> None:
    """As waiting for the end of the connection does."""
    layer = SlowBodies(wait_after_body, timeout_s=TIMEOUT_S)
    assert await layer({"method": "POST"}, Messages(part(b"", more=False)), None) == "still waiting"


async def wait_after_body(scope: Any, receive: Any, send: Any) -> str:
    await receive()
    try:
        await asyncio.wait_for(receive(), TIMEOUT_S * 4)
    except TimeoutError:
        return "still waiting"
    return "cut short"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_request_without_a_body_is_not_watched(method: str) -> None:
    receive = Messages()

    async def which(scope: Any, given: Any, send: Any) -> bool:
        return given is receive

    assert await SlowBodies(which, timeout_s=TIMEOUT_S)({"method": method}, receive, None)


async def test_cancellation_from_outside_stays_one() -> None:
    layer = SlowBodies(read_body, timeout_s=60)
    reading = asyncio.create_task(layer({"method": "POST"}, Messages(), None))
    await asyncio.sleep(0)  # it begins
    assert layer.waiting
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not layer.waiting


async def test_many_slow_bodies_each_end() -> None:
    layer = SlowBodies(read_body, timeout_s=TIMEOUT_S)
    answers = await asyncio.gather(
        *(layer({"method": "POST"}, Messages(), None) for _ in range(100)), return_exceptions=True
    )
    assert all(isinstance(answer, RequestTooSlow) for answer in answers)
