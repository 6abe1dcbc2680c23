"""Jobs that sleep, on more and more worker processes: the time they take, and what the machine had to do."""

import psutil

from bridge.catalog import load_catalog
from bridge.control import Control
from bridge.event_stream import EventStream
from tests.benchmarks.bench_queue import IMPORT_PATHS, SLEEPERS_KEY, Sleepers
from tests.benchmarks.contest import BULK
from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.ours import new_jobs, open_pool
from tests.benchmarks.worker_processes import commands_on, started_workers, until_events

QUEUE = "sleepers"


async def measure(url: str, *, jobs: int, workers: int, seconds: float) -> Values:
    """The clock runs from `queue.resumed`, when jobs are stored and workers ready, to the last `job.succeeded`."""
    redis = open_pool(url)
    control = Control(redis, load_catalog(IMPORT_PATHS), redis.scripts, keep_result_s=0)
    await control.pause(QUEUE)
    for start in range(0, jobs, BULK):
        batch = new_jobs(min(BULK, jobs - start), "sleep", queue=QUEUE, queue_key=SLEEPERS_KEY, seconds=seconds)
        await redis.scripts.enqueue(batch)
    with commands_on(url) as commands:
        processes = await started_workers(commands, redis, workers, QUEUE)
        server = psutil.Process((await redis.info("server"))["process_id"])
        before = await EventStream(redis).last_id()
        machine_s, server_s = busy_s(), sum(server.cpu_times()[:2])
        await control.resume(QUEUE)
        (resumed_ms,) = await until_events(redis, "queue.resumed", 1, after=before, alive=processes)
        ended_ms = await until_events(redis, "job.succeeded", jobs, after=before, alive=processes)
        took_s = (ended_ms[-1] - resumed_ms) / 1000
        cores = psutil.cpu_count() or 1
        machine_share = (busy_s() - machine_s) / took_s / cores
        server_share = (sum(server.cpu_times()[:2]) - server_s) / took_s
    ideal_s = jobs * seconds / (Sleepers.max_jobs * workers)
    return {
        "took_s": took_s,
        "ideal_s": ideal_s,
        "ratio": took_s / ideal_s,
        "machine_percent": 100 * machine_share,
        "valkey_percent_of_a_core": 100 * server_share,
    }


def busy_s() -> float:
    """Seconds that the machine's cores have worked, for whatever program."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0)


if __name__ == "__main__":
    run_figure(measure, __doc__, jobs=20_000, workers=10, seconds=1.0)
