"""Writes events at a steady rate, each with the instant in which it was sent: a process of its own."""

import argparse
import time

from redis import Redis

from bridge import keys


def write(redis: Redis, *, rate: float, seconds: float) -> int:
    """How many were written. One that is late does not move those after it."""
    started_s = time.monotonic()
    count = int(rate * seconds)
    for number in range(count):
        wait_s = started_s + number / rate - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        data = b'{"ran_ms":12,"queued_ms":3,"result":{"items":[1,2,3],"sent_ns":%d}}' % time.monotonic_ns()
        fields = {
            "kind": "job.succeeded",
            "job_id": f"{number:032x}",
            "queue": "load_test",
            "task": "io_simulation_task",
            "attempt": 1,
            "at_ms": time.time_ns() // 1_000_000,
            "worker": "host:12345:c40ebd",
            "data": data,
        }
        redis.xadd(keys.EVENTS, fields, maxlen=100_000)  # type: ignore[arg-type]
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    with Redis(port=options.port) as client:
        print(write(client, rate=options.rate, seconds=options.seconds))
