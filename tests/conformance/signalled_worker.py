"""A worker of either class in a process of its own, as ``python -m`` runs it: it handles signals itself.

Its function ``hold`` says that it has started, and returns once a line comes in; ``quick`` returns at once.

Arguments: ``module:class`` of the worker, Redis URL, other options of the worker as JSON.
"""

import asyncio
import json
import os
import pkgutil
import signal
import sys
from typing import Any

from arq.connections import RedisSettings
from arq.worker import Worker

from bridge.codec import job_deserializer, job_serializer

Context = dict[str, Any]


async def hold(ctx: Context) -> int:
    print("started", flush=True)
    await ctx["gate"].wait()
    print("finished", flush=True)
    return os.getpid()


async def quick(ctx: Context) -> int:
    return os.getpid()


async def on_startup(ctx: Context) -> None:
    loop = asyncio.get_running_loop()
    gate = ctx["gate"] = asyncio.Event()

    def open_gate() -> None:
        loop.remove_reader(sys.stdin.fileno())
        gate.set()

    loop.add_reader(sys.stdin.fileno(), open_gate)
    print("ready", flush=True)


async def on_shutdown(ctx: Context) -> None:
    print("shut down", flush=True)


def on_stop(signum: signal.Signals) -> None:
    print(f"stopped by {signum.name}", flush=True)


def main(class_path: str, url: str, options: str) -> None:
    worker_class: Any = pkgutil.resolve_name(class_path)
    worker: Worker = worker_class(
        [hold, quick],
        redis_settings=RedisSettings.from_dsn(url),
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
        on_startup=on_startup,
        on_shutdown=on_shutdown,
        **json.loads(options),
    )
    worker.on_stop = on_stop
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
