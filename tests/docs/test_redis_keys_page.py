"""``docs/reference/redis-keys.md`` lists the keys as the code has them, and as Redis holds them."""

import ast
import re
from itertools import pairwise
from typing import Final

import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.codec import ResultPayload
from bridge.errors import TaskFailed
from bridge.settings import Settings
from tests.docs.pages import ROOT, plain, read_page
from tests.docs.running import running_worker

PAGE: Final = read_page(ROOT / "docs/reference/redis-keys.md")
TABLE: Final = PAGE.table("key", "type", "time to live", "written by", "holds")
ROWS: Final = {plain(row["key"]): row for row in TABLE.rows}


def test_table_has_every_key_of_the_code_with_its_type() -> None:
    told = {key.partition("<")[0]: row["type"] for key, row in ROWS.items() if not key.endswith("health-check")}
    assert told == dict(constants())


def constants() -> list[tuple[str, str]]:
    """Value and type of each key or prefix of `bridge.keys`; the text below a constant begins with the type."""
    body = ast.parse((ROOT / "bridge/keys.py").read_text()).body
    found = []
    for statement, below in pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = getattr(keys, statement.target.id)
            if isinstance(value, str) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                kind = re.split(r"[, ]", str(below.value.value))[0]
                found.append((value, {"int": "string"}.get(kind, kind)))
    return found


def test_table_has_what_every_key_function_makes() -> None:
    queue = keys.queue("<queue>")
    made = {make("<id>") for make in (keys.job, keys.in_progress, keys.retry, keys.result)}
    dead = keys.DEAD_PREFIX + "<queue>"
    made |= {queue, keys.health_check(queue), keys.wake("<queue>"), keys.ABORT, keys.EVENTS, dead, f"{dead}:<id>"}
    made |= {f"{keys.STATS_PREFIX}<queue>:<minute>", f"{keys.PAUSED_PREFIX}<queue>", f"{keys.PROGRESS_PREFIX}<id>"}
    made |= {f"{keys.ORDERS_PREFIX}<worker>", keys.cron("<queue>"), keys.WORKERS, keys.worker("<worker>")}
    made |= {keys.ring("<worker>"), keys.totals("<queue>")}
    made |= {f"{keys.IDEMPOTENCY_PREFIX}<caller>:<key>"}
    assert made == set(ROWS)


async def test_redis_holds_only_keys_of_the_table(redis: AegisRedis, catalog: Catalog, settings: Settings) -> None:
    queue = catalog.queue("load_test")
    redis.default_queue_name = queue.key
    running = await redis.enqueue_job("io_simulation_task", delay_ms=100, operations=300)
    done = await redis.enqueue_job("io_simulation_task", delay_ms=0)
    failed = await redis.enqueue_job("failure_testing_task", failure_rate=1)
    later = await redis.enqueue_job("io_simulation_task", _defer_by=60)
    assert running
    assert done
    assert failed
    assert later
    async with running_worker(queue, settings):
        await done.result(timeout=30, poll_delay=0.05)
        with pytest.raises(TaskFailed):
            await failed.result(timeout=30, poll_delay=0.05)
        await redis.zadd(keys.ABORT, {"another": 1})
        held = {key.decode(): await redis.type(key) async for key in redis.scan_iter()}
        expiring = {key for key in held if await redis.pttl(key) >= 0}
    patterns = {
        name: re.compile(re.sub(r"<\w+>", r"[^:]+", re.escape(name).replace("<worker>", ".+"))) for name in ROWS
    }
    found = {key: next((n for n, p in patterns.items() if p.fullmatch(key)), "") for key in held}
    # A token is there only until an idle worker takes it; nothing here writes the others.
    fleeting = {keys.wake("<queue>"), f"{keys.PAUSED_PREFIX}<queue>", f"{keys.PROGRESS_PREFIX}<id>"}
    fleeting |= {f"{keys.ORDERS_PREFIX}<worker>", keys.cron("<queue>"), keys.ring("<worker>")}
    fleeting |= {f"{keys.IDEMPOTENCY_PREFIX}<caller>:<key>"}
    assert set(found.values()) - fleeting == set(ROWS) - fleeting
    for key, name in found.items():
        assert held[key].decode() == ROWS[name]["type"], key
        assert (key in expiring) is not ROWS[name]["time to live"].startswith("none"), key


def test_fields_of_a_job_and_a_result_are_listed_in_order() -> None:
    table = PAGE.table("key", "in a job", "in a result", "holds")
    names = [plain(row["key"]) for row in table.rows]
    assert names == ["t", "f", "a", "k", "et", "s", "r", "st", "ft", "q", "id"]
    assert set(names) == set(ResultPayload.__struct_fields__)
    assert [plain(row["key"]) for row in table.rows if row["in a job"] == "yes"] == names[:5]
