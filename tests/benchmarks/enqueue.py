"""Jobs stored a second: one at a time, by 50 callers at once, in bulk, and in bulk with their arguments checked."""

import time

from bridge.catalog import load_catalog
from bridge.enqueue import Enqueuer
from tests.benchmarks import contest
from tests.benchmarks.bench_queue import IMPORT_PATHS, tally
from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.ours import QUEUE, contender_at, open_pool


async def measure(url: str, *, jobs: int) -> Values:
    rates = await contest.enqueue(contender_at(url), tally, jobs)
    return {**rates, "checked_bulk_per_s": await enqueue_checked(url, 10 * jobs // contest.BULK)}


async def enqueue_checked(url: str, calls: int) -> float:
    """The rate of `Enqueuer`, which the gateway uses: task looked up, arguments converted, a verdict for each job."""
    enqueuer = Enqueuer(load_catalog(IMPORT_PATHS), open_pool(url).scripts)
    started_s = time.perf_counter()
    for _ in range(calls):
        requests = [
            {"task_name": "noop", "queue_type": QUEUE, "kwargs": {"user_id": number}} for number in range(contest.BULK)
        ]
        await enqueuer.enqueue_batch(requests)
    return calls * contest.BULK / (time.perf_counter() - started_s)


if __name__ == "__main__":
    run_figure(measure, __doc__, jobs=5000)
