"""A ``HEAD`` is answered as soon as the head of the answer is known."""

import asyncio
from typing import Any

import pytest

from bridge.gateway.head_requests import HeadRequests

START = {"type": "http.response.start", "status": 200, "headers": []}


async def ask(app: Any, method: str) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope: Any = {"type": "http", "method": method, "path": "/some"}
    await HeadRequests(app, but_not="/files")(scope, receive, send)
    return sent


async def test_answer_without_an_end_is_not_waited_for() -> None:
    ended = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        assert scope["method"] == "GET"
        await send(START)
        try:
            while True:
                await send({"type": "http.response.body", "body": b"more", "more_body": True})
                await asyncio.sleep(0)
        finally:
            ended.append("stream")

    sent = await ask(stream, "HEAD")
    assert sent == [START, {"type": "http.response.body", "body": b"", "more_body": False}]
    assert ended == ["stream"]


async def test_error_before_the_answer_travels_on() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await ask(fail, "HEAD")


async def test_client_that_goes_away_ends_the_answer() -> None:
    started, ended = asyncio.Event(), []

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("answer")

    asking = asyncio.create_task(ask(wait, "HEAD"))
    await started.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended == ["answer"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_methods_are_handed_on(method: str) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"method": scope["method"]})

    assert await ask(answer, method) == [{"method": method}]
