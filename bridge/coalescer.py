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
        call: answers a batch, one answer for each item in their order. An exception among the answers is raised to the
            caller of that item; what the call raises, every caller of the batch gets.
        most: items in one batch.
    """

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]], *, most: int) -> None:
        self.call = call
        self.most = most
        self.waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self.running: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer for this item.

        A caller who is cancelled takes the item out, unless it is on its way: then it is done, and nobody is told.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self.waiting.append((item, answer))
        if self.running is None:
            self.running = loop.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        try:
            while self.waiting:
                batch, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
                batch = [(item, answer) for item, answer in batch if not answer.done()]
                if batch:
                    await self._answer(batch)
        finally:  # whoever ends this task, as the end of the event loop does, must not leave callers waiting for ever
            self.running = None
            for _, answer in (*batch, *self.waiting):
                answer.cancel()
            self.waiting = []

    async def _answer(self, batch: Sequence[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
        answers: Sequence[Answer | Exception]
        try:
            answers = await self.call([item for item, _ in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(answers)} answers to {len(batch)} items")
        except Exception as error:
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
