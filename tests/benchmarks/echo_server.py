"""A Litestar application that answers the request that it was sent, on the same server as our gateway, for ``http``."""

import asyncio
import sys
from typing import Any

import msgspec
import uvloop
from litestar import Litestar, post

from bridge.gateway.server import serve_app


class Request(msgspec.Struct):
    """The body that is posted."""

    task_name: str
    queue_type: str | None = None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


@post("/api/v1/tasks/enqueue", status_code=202)
async def echo(data: Request) -> Request:
    return data


if __name__ == "__main__":
    app = Litestar([echo], openapi_config=None, logging_config=None)
    uvloop.run(serve_app(app, host="127.0.0.1", port=int(sys.argv[1]), stop=asyncio.Event()))
