"""What the figures of ours have in common: options, an empty Redis, and one line of JSON as the answer."""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from redis import Redis

from cli.context import run
from tests.benchmarks.throw_away_valkey import throw_away_valkey

__all__ = ["Values", "end_on_sigterm", "run_figure"]

Values = dict[str, float]


def run_figure(
    measure: Callable[..., Coroutine[Any, Any, Values]], description: str | None, **defaults: float | str
) -> None:
    """The program of a figure: measures it and prints it.

    Args:
        measure: takes the URL of an empty Redis, and the options.
        description: for the help.
        defaults: option -> its default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, help="of a Redis, which is EMPTIED; by default one is started")
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help="by default %(default)s")
    options = vars(parser.parse_args())
    end_on_sigterm()
    logging.disable(logging.CRITICAL)
    with empty_redis(options.pop("port")) as url:
        values = run(measure(url, **options))
    print(json.dumps(values))


def end_on_sigterm() -> None:
    """SIGTERM ends this process as an exception does: what it has started is ended too."""

    def leave(signum: int, frame: object) -> NoReturn:
        sys.exit(128 + signum)

    signal.signal(signal.SIGTERM, leave)


@contextmanager
def empty_redis(port: int | None) -> Iterator[str]:
    if port is None:
        with throw_away_valkey() as own_port, empty_redis(own_port) as url:
            yield url
    else:
        with Redis(port=port) as client:
            client.execute_command("FLUSHALL", "SYNC")  # otherwise old keys are freed while we measure
        yield f"redis://127.0.0.1:{port}/0"
