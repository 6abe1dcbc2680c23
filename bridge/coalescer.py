"""Lets callers who ask at the same time share one call: low latency when idle, batches under load."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Coalescer"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Coalescer(Generic[Item, Answer]):
    """One call is in flight at a time; the next one takes all that has gathered meanwhile.

    Args:
        call: answers a batch, one answer for each item in their order; what it raises, every caller of the batch gets.
        most: items in one batch.
    """

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]], *, most: int) -> None:
        self.call = call
        self.most = most
        self.waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self.running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer for this item. A caller who is cancelled does not take it out of a batch that is on its way."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((item, answer))
        if self.running is None:
            self.running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self.waiting:
                batch, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
                await self._answer([(item, answer) for item, answer in batch if not answer.done()])
        finally:
            self.running = None

    async def _answer(self, batch: Sequence[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
        try:
            answers = await self.call([item for item, _ in batch])
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
