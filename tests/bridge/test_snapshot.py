"""A reader who counts from a snapshot on, by the events after it, is right whenever nothing happens."""

import asyncio
import random
from collections import Counter

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.event_stream import EventStream
from bridge.events import Event
from bridge.new_job import job_body
from bridge.scripts import Depth, Ending, NewJob, Scripts

QUEUES = [(name, keys.queue(name)) for name in ("mail", "print")]
ROUNDS = 25
MOST_TRIES = b'{"":100}'


class Reader:
    """Counts of each queue, from a snapshot and the events after it."""

    def __init__(self, event_id: str, depths: list[Depth]) -> None:
        self.after = event_id
        self.counts = {name: counts(depth) for (name, _), depth in zip(QUEUES, depths, strict=True)}

    def apply(self, event: Event) -> None:
        count = self.counts[event.queue]
        match event.kind:
            case "job.enqueued" | "job.deferred":
                count["waiting"] += 1
            case "job.started":
                count.update({"waiting": -1, "running": 1})
            case "job.retrying":
                count.update({"waiting": 1, "running": -1})
            case "job.succeeded":
                count["running"] -= 1
            case "job.failed":
                count.update({"running": -1, "dead": 1})
            case "job.aborted":
                count["waiting"] -= 1


def counts(depth: Depth) -> Counter[str]:
    return Counter(waiting=depth.queued + depth.deferred, running=depth.in_progress, dead=depth.dead)


async def produce(scripts: Scripts, queue: str, key: str) -> None:
    chance = random.Random(queue)
    body = job_body("send", [], {})
    for batch in range(ROUNDS):
        ids = [f"{queue}-{batch}-{number}" for number in range(chance.randint(1, 30))]
        delays = [chance.choice([0, 0, 5, 3_600_000]) for _ in ids]
        await scripts.enqueue(
            [
                NewJob(job_id=job_id, task="send", queue=queue, queue_key=key, body=body, delay_ms=delay_ms)
                for job_id, delay_ms in zip(ids, delays, strict=True)
            ]
        )
        await scripts.abort(queue, key, chance.choice(ids), keep_result_ms=60_000)


async def work(scripts: Scripts, queue: str, key: str, worker: str) -> None:
    chance = random.Random(worker)
    for turn in range(ROUNDS):
        token = f"{worker}:{turn}"
        claims = await scripts.claim(
            queue, key, worker=worker, token=token, wanted=10, ahead_ms=0, most_tries=MOST_TRIES, heeds_aborts=False
        )
        ids = [job_id.decode() for job_id in claims.jobs[::5]]
        attempts = dict(zip(ids, claims.jobs[2::5], strict=True))
        done = [end(job_id, token, attempts[job_id], chance) for job_id in ids if chance.random() < 0.9]
        await scripts.finish(queue, key, worker=worker, endings=done)


def end(job_id: str, token: str, attempt: int, chance: random.Random) -> Ending:
    kind = chance.choice(["job.succeeded", "job.failed", "job.retrying"])
    data = b'{"reason":"retry"' if kind == "job.retrying" else b"{}"
    letter = b"{}" if kind == "job.failed" else b""
    return Ending(job_id, token, kind, "send", attempt, data, b"{}", 60_000, letter, 0, 0)


async def test_counting_on_from_a_snapshot_neither_misses_nor_counts_twice(redis: AegisRedis) -> None:
    scripts = Scripts(redis, events_max_len=1_000_000)
    load = [
        asyncio.create_task(one)
        for queue, key in QUEUES
        for one in (
            produce(scripts, queue, key),
            *(work(scripts, queue, key, f"{queue}-worker-{number}") for number in range(3)),
        )
    ]
    readers = []
    while not all(task.done() for task in load):
        readers.append(Reader(*await scripts.depths(QUEUES)))
    await asyncio.gather(*load)

    last_id, depths = await scripts.depths(QUEUES)
    events = await EventStream(redis).history(count=100_000)
    assert events[-1].id == last_id
    assert len({reader.after for reader in readers}) > 10
    order = {event.id: place for place, event in enumerate(events)} | {"0-0": -1}
    for reader in readers:
        for event in events[order[reader.after] + 1 :]:
            reader.apply(event)
        assert reader.counts == {name: counts(depth) for (name, _), depth in zip(QUEUES, depths, strict=True)}
    assert all(depth.in_progress and depth.dead and depth.deferred for depth in depths)
