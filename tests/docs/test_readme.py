"""The README's first steps, and the task it adds."""

import ast
import asyncio
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, Final

import pytest

from bridge.aegis_redis import AegisRedis
from bridge.catalog import read_queue
from bridge.event_stream import EventStream
from bridge.settings import Settings
from tests.docs.pages import ROOT, read_page
from tests.docs.running import running_worker
from workers import pools
from workers.queues import system
from workers.worker_settings import queue

PAGE: Final = read_page(ROOT / "README.md")
FIRST_STEPS: Final = """\
curl -X POST http://localhost:8000/api/v1/tasks/enqueue -H "Content-Type: application/json" -d '{"task_name": "io_simulation_task", "queue_type": "load_test"}'
curl http://localhost:8000/api/v1/tasks/result/{task_id}
curl http://localhost:8000/api/v1/tasks/
curl http://localhost:8000/api/v1/tasks/status/{task_id}
.venv/bin/aegis-tasks enqueue io_simulation_task --queue load_test --wait
.venv/bin/aegis-tasks enqueue cpu_intensive_task --queue load_test && .venv/bin/aegis-tasks burst load_test
.venv/bin/aegis-tasks events --follow
""".splitlines()  # noqa: E501


def shell_lines() -> list[str]:
    return [line for block in PAGE.blocks if block.language == "sh" for line in block.text.splitlines()]


def test_first_steps_are_there_letter_for_letter() -> None:
    assert [line for line in FIRST_STEPS if line not in shell_lines()] == []
    assert {"make serve", "make test"} <= set(shell_lines())


async def test_added_task_runs(redis: AegisRedis, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's own lines: the function, the list of functions, and the call of an application."""
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    pools.catalog.cache_clear()
    (block,) = [block for block in PAGE.blocks if block.language == "python"]
    names: dict[str, Any] = {**vars(system), "get_queue_pool": pools.get_queue_pool, "user": SimpleNamespace(id=7)}
    code = compile(block.text, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, names)
    try:
        settings_class = type("WorkerSettings", (), {"functions": names["functions"]})
        decorated = queue("system", settings=settings)(settings_class)
        events = EventStream(redis).follow("0-0")
        async with running_worker(read_queue(decorated, "README"), settings), asyncio.timeout(30), aclosing(events):
            event = await anext(event async for event in events if event.kind == "job.succeeded")
        assert event.task == "send_welcome_email"
        assert bytes(event.data).endswith(b'"result":"user 7 was greeted"}')
    finally:
        await names["redis"].aclose(close_connection_pool=True)
