"""What the gateway and the catalog rely on: typed arguments with defaults and bounds, results of JSON."""

import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from workers.queues.load_test import WorkerSettings
from workers.tasks.cpu_intensive import cpu_intensive_task
from workers.tasks.failure_testing import failure_testing_task
from workers.tasks.io_simulation import io_simulation_task
from workers.tasks.load_test_orchestrator import LoadTaskName, load_test_orchestrator
from workers.tasks.memory_operations import memory_operations_task
from workers.tasks.system_health import system_health_check
from workers.tasks.temp_files import cleanup_temp_files

Task = Callable[..., Awaitable[Any]]

TASKS: list[Task] = [
    cleanup_temp_files,
    cpu_intensive_task,
    failure_testing_task,
    io_simulation_task,
    load_test_orchestrator,
    memory_operations_task,
    system_health_check,
]


def arguments_type(task: Task) -> type[msgspec.Struct]:
    parameters = list(inspect.signature(task).parameters.values())[1:]
    return msgspec.defstruct(
        "Arguments",
        [(parameter.name, parameter.annotation, parameter.default) for parameter in parameters],
        forbid_unknown_fields=True,
        kw_only=True,
    )


@pytest.mark.parametrize("task", TASKS)
def test_every_argument_has_a_default_that_its_own_bounds_allow(task: Task) -> None:
    context, *parameters = inspect.signature(task).parameters.values()
    assert context.name == "ctx"
    for parameter in parameters:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty
        assert msgspec.convert(parameter.default, parameter.annotation) == parameter.default


@pytest.mark.parametrize("task", TASKS)
def test_first_line_of_the_docstring_is_one_sentence_for_users(task: Task) -> None:
    first_line, blank, *_ = (inspect.getdoc(task) or "").splitlines()
    assert first_line.endswith(".")
    assert "`" not in first_line
    assert blank == ""


@pytest.mark.parametrize("task", TASKS)
def test_every_argument_is_documented(task: Task) -> None:
    text = inspect.getdoc(task) or ""
    for name in inspect.signature(task).parameters:
        assert f"\n    {name}: " in text


@pytest.mark.parametrize("task", TASKS)
async def test_task_runs_without_arguments_and_its_result_survives_json(
    task: Task, ctx: dict[str, Any], temp_root: Path
) -> None:
    try:
        result = await task(ctx)
    except Exception as error:
        assert task is failure_testing_task, error  # noqa: PT017 - it may, it is its purpose
        result = await task(ctx, failure_rate=0)
    declared = inspect.signature(task).return_annotation
    assert type(result) is declared
    assert msgspec.json.decode(msgspec.json.encode(result), type=declared) == result


@pytest.mark.parametrize("task", TASKS)
def test_arguments_have_a_json_schema(task: Task) -> None:
    schema = msgspec.json.schema(arguments_type(task))
    properties = schema["$defs"]["Arguments"]["properties"]
    assert properties.keys() == set(list(inspect.signature(task).parameters)[1:])
    assert all("default" in described for described in properties.values())


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        (cleanup_temp_files, {"max_age_hours": -1}),
        (cleanup_temp_files, {"max_age_hours": "24"}),
        (cleanup_temp_files, {"dry_run": 1}),
        (cpu_intensive_task, {"iterations": 0}),
        (cpu_intensive_task, {"iterations": 20_000_001}),
        (cpu_intensive_task, {"iterations": 1.5}),
        (failure_testing_task, {"failure_rate": 1.01}),
        (failure_testing_task, {"failure_rate": -0.01}),
        (failure_testing_task, {"seed": "seven"}),
        (failure_testing_task, {"seed": 2**63}),
        (io_simulation_task, {"delay_ms": -1}),
        (io_simulation_task, {"delay_ms": 60_001}),
        (io_simulation_task, {"delay_ms": "slow"}),
        (io_simulation_task, {"operations": 0}),
        (io_simulation_task, {"file_bytes": 1024 * 1024 + 1}),
        (load_test_orchestrator, {"task_name": "load_test_orchestrator"}),
        (load_test_orchestrator, {"num_tasks": 0}),
        (load_test_orchestrator, {"num_tasks": 10_001}),
        (load_test_orchestrator, {"batch_size": 0}),
        (load_test_orchestrator, {"delay_between_batches_ms": -1}),
        (memory_operations_task, {"size_mb": 257}),
        (memory_operations_task, {"size_mb": 0}),
        (memory_operations_task, {"rounds": 21}),
        (system_health_check, {"disk_percent_warn": 101}),
        (system_health_check, {"cpu_interval_ms": 2_001}),
        (system_health_check, {"redis_timeout_ms": 9}),
    ],
)
def test_a_bad_value_is_refused_with_the_name_of_its_argument(task: Task, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(msgspec.ValidationError, match=rf"\$\.{name}`$"):
        msgspec.convert(arguments, arguments_type(task))


def test_orchestrator_offers_every_other_task_of_the_load_test_queue() -> None:
    offered = msgspec.json.schema(LoadTaskName)["enum"]
    assert {*offered, "load_test_orchestrator"} == {
        function.name for function in vars(WorkerSettings)["declared_functions"]
    }
