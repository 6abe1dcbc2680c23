from pathlib import Path
from typing import Any

import pytest
from arq import cron, func

from bridge.catalog import Catalog, load_catalog, read_queue
from bridge.errors import ConfigurationError, InvalidQueueType, InvalidTaskName


async def hello(ctx: dict[str, Any], name: str = "you") -> str:
    """Greets someone.

    At length.
    """
    return name


class Mail:
    functions = [hello, func(hello, name="slow_hello", timeout=7, max_tries=1)]  # noqa: RUF012
    queue_name = "arq:queue:mail"
    max_jobs = 3
    job_timeout = 60


class Plain:
    functions = [hello]  # noqa: RUF012


def test_own_queues_are_as_the_product_says(catalog: Catalog) -> None:
    system, load_test, media = (catalog.queue(name) for name in ("system", "load_test", "media"))
    assert (system.max_jobs, {task.timeout_s for task in system.tasks.values()}) == (15, {300})
    assert (load_test.max_jobs, {task.timeout_s for task in load_test.tasks.values()}) == (50, {60})
    assert list(system.tasks) == ["system_health_check", "cleanup_temp_files"]
    assert sorted(load_test.tasks) == [
        "cpu_intensive_task",
        "failure_testing_task",
        "io_simulation_task",
        "load_test_orchestrator",
        "memory_operations_task",
        "noop_task",
    ]
    assert media.tasks == {}


def test_every_own_task_runs_without_arguments(catalog: Catalog) -> None:
    for queue in catalog.queues.values():
        for task in queue.tasks.values():
            assert task.signature.convert([], {}) == ([], {})
            assert task.summary


def test_task_is_read_from_its_settings_class() -> None:
    queue = read_queue(Mail, "app.Mail")
    assert (queue.name, queue.key, queue.max_jobs) == ("mail", "arq:queue:mail", 3)
    assert (queue.tasks["hello"].timeout_s, queue.tasks["hello"].max_tries) == (60, 5)
    assert (queue.tasks["slow_hello"].timeout_s, queue.tasks["slow_hello"].max_tries) == (7, 1)
    assert queue.tasks["hello"].summary == "Greets someone."


def test_plain_arq_class_without_a_queue_name_is_the_default_queue() -> None:
    queue = read_queue(Plain, "app.Plain")
    assert (queue.name, queue.key) == ("default", "arq:queue")


def test_task_is_found_without_its_queue() -> None:
    catalog = Catalog([read_queue(Mail, "app.Mail"), read_queue(Plain, "app.Plain")])
    assert catalog.task("slow_hello").queue == "mail"


def test_task_on_several_queues_needs_one_named() -> None:
    catalog = Catalog([read_queue(Mail, "app.Mail"), read_queue(Plain, "app.Plain")])
    with pytest.raises(InvalidTaskName, match=r"on several queues \(mail, default\)"):
        catalog.task("hello")
    assert catalog.task("hello", "default").queue == "default"


def test_unknown_names_say_what_there_is() -> None:
    catalog = Catalog([read_queue(Mail, "app.Mail")])
    with pytest.raises(InvalidTaskName, match="tasks: hello, slow_hello") as unknown_task:
        catalog.task("helo", "mail")
    assert unknown_task.value.available_tasks == ["hello", "slow_hello"]
    with pytest.raises(InvalidQueueType, match="queues: mail") as unknown_queue:
        catalog.task("hello", "male")
    assert unknown_queue.value.available_queues == ["mail"]


def test_class_with_cron_jobs_only_has_work() -> None:
    class Nightly:
        functions: list[Any] = []  # noqa: RUF012
        cron_jobs = [cron(hello, hour=3)]  # noqa: RUF012

    class Empty: ...

    assert read_queue(Nightly, "app.Nightly").has_work
    assert not read_queue(Empty, "app.Empty").has_work


def test_two_classes_of_one_queue_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'mail' is defined twice: a and b"):
        Catalog([read_queue(Mail, "a"), read_queue(Mail, "b")])


@pytest.mark.parametrize("path", ["nowhere", "nowhere.at.all", "bridge.catalog.Missing", "bridge.codec.encoder", ""])
def test_import_path_that_leads_nowhere_is_named(path: str) -> None:
    with pytest.raises(ConfigurationError, match="AEGIS_QUEUES"):
        load_catalog([path])


def test_module_of_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_queue_module.py").write_text(
        "async def job(ctx): ...\nclass WorkerSettings:\n    functions = [job]\n    queue_name = 'arq:queue:mine'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_catalog(["my_queue_module"]).task("job").queue == "mine"
    assert load_catalog(["my_queue_module.WorkerSettings"]).task("job").queue == "mine"


def test_function_that_arq_cannot_run_is_refused() -> None:
    class Broken:
        functions = [print]  # noqa: RUF012

    with pytest.raises(ConfigurationError, match=r"app\.Broken: functions"):
        read_queue(Broken, "app.Broken")
