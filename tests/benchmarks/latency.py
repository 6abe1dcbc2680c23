"""How long a job waits for an idle worker: ms from ``enqueue_job`` to the first line of its task."""

from tests.benchmarks import contest
from tests.benchmarks.bench_queue import tally
from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.ours import contender_at


async def measure(url: str, *, jobs: int) -> Values:
    return await contest.latency(contender_at(url), tally, jobs)


if __name__ == "__main__":
    run_figure(measure, __doc__, jobs=100)
