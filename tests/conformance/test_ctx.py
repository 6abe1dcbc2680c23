"""The ``ctx`` that each job gets."""

from datetime import UTC, datetime, timedelta

from arq.connections import ArqRedis
from arq.utils import to_unix_ms

from tests.conformance.conftest import QUEUE, Context, MakeWorker, drain, enqueue, named


class Look:
    """A function that keeps the contexts it is called with."""

    def __init__(self) -> None:
        self.seen: list[Context] = []

        async def look(ctx: Context) -> None:
            self.seen.append(ctx)

        self.function = named(look)

    @property
    def only(self) -> Context:
        (ctx,) = self.seen
        return ctx


async def test_ctx_has_the_jobs_id_and_try(make_worker: MakeWorker, producer: ArqRedis) -> None:
    look = Look()
    await enqueue(producer, "look", _job_id="order-7")
    await drain(make_worker([look.function]))
    assert (look.only["job_id"], look.only["job_try"]) == ("order-7", 1)


async def test_ctx_has_the_moment_of_the_enqueue(make_worker: MakeWorker, producer: ArqRedis) -> None:
    look = Look()
    info = await (await enqueue(producer, "look")).info()
    await drain(make_worker([look.function]))
    assert info is not None
    assert look.only["enqueue_time"] == info.enqueue_time
    assert look.only["enqueue_time"].utcoffset() is not None, "it knows its time zone"


async def test_ctx_has_the_due_time_as_score(make_worker: MakeWorker, producer: ArqRedis) -> None:
    look = Look()
    due_at = datetime.now(UTC) - timedelta(minutes=1)
    await enqueue(producer, "look", _defer_until=due_at)
    await drain(make_worker([look.function]))
    assert look.only["score"] == to_unix_ms(due_at)


async def test_ctx_has_a_redis_to_enqueue_further_jobs_with(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def parent(ctx: Context) -> None:
        await ctx["redis"].enqueue_job("child", 7, _job_id="child", _queue_name=QUEUE)

    async def child(ctx: Context, number: int) -> None:
        numbers.append(number)

    numbers: list[int] = []
    await enqueue(producer, "parent")
    await drain(make_worker([named(parent), named(child)]))
    assert numbers == [7]


async def test_further_jobs_go_to_the_workers_own_queue_by_default(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def parent(ctx: Context) -> None:
        await ctx["redis"].enqueue_job("look")

    look = Look()
    await enqueue(producer, "parent")
    await drain(make_worker([named(parent), look.function]))
    assert len(look.seen) == 1


async def test_ctx_has_the_entries_of_the_workers_own(make_worker: MakeWorker, producer: ArqRedis) -> None:
    look, database = Look(), object()
    await enqueue(producer, "look")
    await drain(make_worker([look.function], ctx={"database": database}))
    assert look.only["database"] is database


async def test_ctx_has_what_on_startup_has_put_there(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def connect(ctx: Context) -> None:
        ctx["database"] = database

    look, database = Look(), object()
    await enqueue(producer, "look")
    await drain(make_worker([look.function], on_startup=connect))
    assert look.only["database"] is database


async def test_workers_ctx_is_the_dict_it_was_given(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ctx: Context = {"name": "mine"}
    worker = make_worker([Look().function], ctx=ctx)
    await drain(worker)
    assert worker.ctx is ctx
    assert ctx["redis"] is worker.pool


async def test_what_a_job_puts_into_ctx_is_not_seen_by_others(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def write(ctx: Context) -> None:
        leaked.append("mark" in ctx)
        ctx["mark"] = 1

    leaked: list[bool] = []
    for _ in range(2):
        await enqueue(producer, "write")
    worker = make_worker([named(write)], max_jobs=1)
    await drain(worker)
    assert leaked == [False, False]
    assert "mark" not in worker.ctx


async def test_objects_in_ctx_are_shared_by_all_jobs(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def count(ctx: Context) -> None:
        ctx["counted"].append(ctx["job_id"])

    counted: list[str] = []
    for number in range(3):
        await enqueue(producer, "count", _job_id=str(number))
    await drain(make_worker([named(count)], ctx={"counted": counted}))
    assert sorted(counted) == ["0", "1", "2"]
