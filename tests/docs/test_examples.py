"""The files of ``docs/examples``: the guides quote them word for word, and they do what the guides say."""

import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog, load_catalog
from bridge.errors import InvalidArguments
from bridge.event_stream import EventStream
from bridge.settings import Settings
from cli.serve import welcome
from tests.docs.pages import PAGES, ROOT, Block, read_page
from tests.docs.running import gateway_client, running_worker
from workers import pools
from workers.batch_worker import BatchWorker

EXAMPLES: Final = ROOT / "docs/examples"
LINT_REMARK: Final = re.compile(r"  # noqa: .*")


@pytest.fixture(autouse=True)
def examples_on_the_path(monkeypatch: pytest.MonkeyPatch, valkey_url: str) -> Iterator[None]:
    """The examples can be imported, and find the real Valkey; each test imports them anew."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("AEGIS_QUEUES", "mail_queue,workers.queues.load_test")
    pools.catalog.cache_clear()
    yield
    pools.catalog.cache_clear()
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def quotes() -> Iterator[tuple[str, Block]]:
    for page in PAGES:
        for block in page.blocks:
            if block.note.endswith(".py"):
                yield block.note, block


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_is_quoted_word_for_word(path: Path) -> None:
    quoted = [block.text for name, block in quotes() if name == path.name]
    assert quoted == [LINT_REMARK.sub("", path.read_text())]


def test_every_quote_is_of_an_example() -> None:
    assert {name for name, _ in quotes()} == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.fixture
def mail(examples_on_the_path: None) -> Catalog:
    """The catalog of the example's queue."""
    return load_catalog(["mail_queue"])


async def test_own_queue_runs_its_tasks(redis: AegisRedis, settings: Settings, mail: Catalog) -> None:
    queue = mail.queue("mail")
    assert (queue.max_jobs, queue.tasks["send_welcome_email"].timeout_s) == (10, 30)
    redis.default_queue_name = queue.key
    since = datetime.now(UTC) - timedelta(days=3)
    sent = await redis.enqueue_job("send_welcome_email", 7)
    counted = await redis.enqueue_job("fetch_bounces", since=since)
    assert sent
    assert counted
    async with running_worker(queue, settings):
        assert (await sent.result(timeout=30, poll_delay=0.05))["template"] == "short"
        assert await counted.result(timeout=30, poll_delay=0.05) == 3
    info = await counted.result_info()
    assert info
    assert info.job_try == 2


async def test_task_of_the_guide_tells_how_far_it_is(redis: AegisRedis) -> None:
    (function,) = import_module("report_progress").functions
    worker = BatchWorker([function], queue_name="arq:queue:mail", redis_pool=redis, burst=True, handle_signals=False)
    redis.default_queue_name = "arq:queue:mail"
    await redis.enqueue_job("resize_all", ["a.png", "b.png"], 80)
    await worker.async_run()
    *_, progressed, succeeded = [event for event in await EventStream(redis).history() if event.job_id]
    assert json.loads(bytes(progressed.data)) == {"current": 2, "total": 2}
    assert succeeded.kind == "job.succeeded"


async def test_application_enqueues_once_for_a_user(redis: AegisRedis) -> None:
    sign_up = import_module("sign_up").sign_up
    try:
        assert [await sign_up(7), await sign_up(7), await sign_up(8)] == ["welcome-7", None, "welcome-8"]
    finally:
        pool, key = await pools.get_queue_pool("mail")
        await pool.aclose(close_connection_pool=True)
    assert await redis.zcard(key) == 2


async def test_stock_client_reads_results_and_errors(redis: AegisRedis, settings: Settings, catalog: Catalog) -> None:
    example = import_module("stock_arq_client")
    pool = await example.open_pool(settings.redis_url)
    try:
        async with running_worker(catalog.queue("load_test"), settings):
            assert (await example.run(pool, "io_simulation_task", delay_ms=10))["operations"] == 2
            failure = await example.run(pool, "failure_testing_task", failure_rate=1)
            assert failure.startswith("IntendedFailure: failed on purpose")
            assert await example.run(pool, "io_simulation_task", _job_id="one", delay_ms=1)
            assert await example.run(pool, "io_simulation_task", _job_id="one") == "a job with this id exists"
    finally:
        await pool.aclose(close_connection_pool=True)


async def test_plain_client_reads_events(redis: AegisRedis, settings: Settings) -> None:
    redis.default_queue_name = "arq:queue:mail"
    await redis.enqueue_job("send_welcome_email", 7, _job_id="first")
    client = Redis.from_url(settings.redis_url, decode_responses=True)
    try:
        events: AsyncIterator[Any] = import_module("read_events").read_events(client)
        async with aclosing(events) as stream:  # type: ignore[type-var]
            first_id, kind, job_id, data = await anext(stream)
            assert (kind, job_id, list(data)) == ("job.enqueued", "first", ["due_at_ms"])
            await redis.enqueue_job("send_welcome_email", 7, _job_id="second", _defer_by=60)
            second_id, kind, job_id, _ = await anext(stream)
            assert (kind, job_id) == ("job.deferred", "second")
            assert second_id > first_id
    finally:
        await client.aclose()


async def test_wrong_argument_gets_the_answer_of_the_guide(settings: Settings, mail: Catalog) -> None:
    page = read_page(ROOT / "docs/guides/adding-a-task.md")
    (request,) = [block.text for block in page.blocks if block.text.startswith("curl")]
    (answer,) = [block.text for block in page.blocks if block.language == "json"]
    async with gateway_client(settings, mail) as gateway:
        got = await gateway.post("/api/v1/tasks/enqueue", json=json.loads(request.split("'")[1]))
    problem = got.json()
    assert problem.pop("request_id") == got.headers["X-Request-ID"]
    assert problem == json.loads(answer)


FIRST_TASK: Final = read_page(ROOT / "docs/guides/first-task.md")


def test_tutorial_shows_what_serve_prints(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    welcome(Settings(), catalog, "127.0.0.1", 8000)
    (shown,) = [block.text for block in FIRST_TASK.blocks if block.text.startswith("aegis-tasks is ready")]
    assert capsys.readouterr().out.startswith(shown)


def test_tutorial_shows_what_a_wrong_argument_gives(catalog: Catalog) -> None:
    (shown,) = [block.text for block in FIRST_TASK.blocks if block.text.startswith("aegis-tasks: ")]
    signature = catalog.task("io_simulation_task").signature
    told = []
    for arguments in ({"delay": "50"}, {"delay_ms": "soon"}):
        with pytest.raises(InvalidArguments) as refused:
            signature.convert([], arguments, strict=False)
        told.append(f"aegis-tasks: {refused.value}")
    assert told == shown.splitlines()
