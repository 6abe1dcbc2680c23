"""Which figure is taken of whom, how often, and in which order."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.contenders import OF_HTTP_ALONE

__all__ = ["FIGURES", "FULL", "QUICK", "Sizes", "Step", "plan"]

FIGURES: Final = ("drain", "latency", "enqueue", "http", "memory", "recovery", "sleepers", "idle")
EVERY_ROUND: Final = ("drain", "latency", "enqueue", "http", "recovery")
"""The others vary little, or take long: they are taken once."""
OF_OURS_ALONE: Final = ("recovery", "sleepers", "idle")
SLOW: Final = ("arq", "saq", "taskiq", "streaq")


@dataclass(frozen=True)
class Sizes:
    """How many jobs each figure takes; of ``idle``, how many seconds each of its waits, and of ``http`` each run."""

    drain: int
    drain_of_slow: int
    latency: int
    enqueue: int
    http: float
    memory: int
    recovery: int
    idle: float
    sleepers: int
    workers: tuple[int, ...]


FULL: Final = Sizes(
    drain=40_000,
    drain_of_slow=10_000,
    latency=100,
    enqueue=5000,
    http=5,
    memory=100_000,
    recovery=50,
    idle=10,
    sleepers=20_000,
    workers=(10, 20, 40),
)
QUICK: Final = Sizes(
    drain=10_000,
    drain_of_slow=2000,
    latency=25,
    enqueue=1000,
    http=1,
    memory=10_000,
    recovery=10,
    idle=2,
    sleepers=2000,
    workers=(10,),
)


@dataclass(frozen=True)
class Step:
    """One figure of one contender, once."""

    figure: str
    contender: str
    round: int
    size: float
    workers: int = 1


def plan(sizes: Sizes, figures: Collection[str], contenders: Collection[str], rounds: int) -> Iterator[Step]:
    """Rounds in which the contenders take turns, so that what disturbs the machine disturbs them all alike.

    Every second round goes the other way about. Ours comes first, or last.
    """
    for number in range(1, rounds + 1):
        for figure in FIGURES:
            if figure not in figures or (number > 1 and figure not in EVERY_ROUND):
                continue
            taking_part = [name for name in contenders if takes_part(name, figure)]
            for name in taking_part if number % 2 else reversed(taking_part):
                for workers in sizes.workers if figure == "sleepers" else (1,):
                    yield Step(figure, name, number, size_of(sizes, figure, name), workers)


def takes_part(contender: str, figure: str) -> bool:
    if contender in OF_HTTP_ALONE or figure == "http":
        return figure == "http" and contender in {"ours", *OF_HTTP_ALONE}
    if figure in OF_OURS_ALONE:
        return contender == "ours"
    return not (figure == "memory" and contender == "floor")


def size_of(sizes: Sizes, figure: str, contender: str) -> float:
    size: float = getattr(sizes, "drain_of_slow" if figure == "drain" and contender in SLOW else figure)
    return size
