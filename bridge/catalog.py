"""What can be enqueued where: queue -> task -> arguments, timeout, tries, read from WorkerSettings classes."""

import importlib
import inspect
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from arq.constants import default_queue_name
from arq.utils import to_seconds
from arq.worker import Function, func

from bridge import keys
from bridge.arguments import Signature
from bridge.errors import ConfigurationError, InvalidQueueType, InvalidTaskName

__all__ = ["ARQ_JOB_TIMEOUT_S", "Catalog", "Queue", "Task", "TaskDescription", "load_catalog", "load_worker_settings"]

ARQ_JOB_TIMEOUT_S: Final = 300
ARQ_MAX_JOBS: Final = 10
ARQ_MAX_TRIES: Final = 5


class TaskDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A task that can be enqueued.

    Attributes:
        arguments: JSON Schema of ``kwargs``.
        timeout_seconds: a run that takes longer is cancelled; ``null`` without a limit.
    """

    name: str
    queue: str
    summary: str
    arguments: dict[str, Any]
    timeout_seconds: float | None
    max_tries: int


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A registered function.

    Attributes:
        summary: first line of its docstring, ``""`` without one.
        timeout_s: a run that takes longer is cancelled and fails.
        max_tries: attempts, the first included.
    """

    name: str
    queue: str
    summary: str
    signature: Signature
    timeout_s: float
    max_tries: int

    def describe(self) -> TaskDescription:
        """The task as callers see it."""
        return TaskDescription(
            name=self.name,
            queue=self.queue,
            summary=self.summary,
            arguments=self.signature.json_schema,
            timeout_seconds=None if math.isinf(self.timeout_s) else self.timeout_s,
            max_tries=self.max_tries,
        )


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue and the class that its workers run.

    Attributes:
        name: short name, ``system``.
        key: its zset, ``arq:queue:system``.
        max_jobs: jobs that one worker runs at a time.
        import_path: where its settings class came from.
        settings_class: the class itself.
    """

    name: str
    key: str
    tasks: dict[str, Task]
    max_jobs: int
    import_path: str
    settings_class: type

    @property
    def has_work(self) -> bool:
        """Whether a worker of it would have anything to do: a task, or a cron job."""
        return bool(self.tasks or vars(self.settings_class).get("cron_jobs"))


class Catalog:
    """The queues that this deployment knows.

    Args:
        queues: one for each settings class.

    Raises:
        ConfigurationError: two classes have the same queue.
    """

    def __init__(self, queues: Iterable[Queue]) -> None:
        self.queues: dict[str, Queue] = {}
        for queue in queues:
            if queue.name in self.queues:
                other = self.queues[queue.name].import_path
                raise ConfigurationError(f"queue {queue.name!r} is defined twice: {other} and {queue.import_path}")
            self.queues[queue.name] = queue

    def task_names(self) -> list[str]:
        """Every task's name, once, sorted."""
        return sorted({name for queue in self.queues.values() for name in queue.tasks})

    def queue(self, name: str) -> Queue:
        """The queue of this name.

        Raises:
            InvalidQueueType: there is none.
        """
        if name not in self.queues:
            raise InvalidQueueType(name, available_queues=list(self.queues))
        return self.queues[name]

    def task(self, name: str, queue_name: str | None = None) -> Task:
        """The task of this name on that queue; without a queue, on the one queue that has it.

        Raises:
            InvalidQueueType: there is no such queue.
            InvalidTaskName: the queue, or every queue, lacks the task; or several have it and none was named.
        """
        queues = list(self.queues.values()) if queue_name is None else [self.queue(queue_name)]
        found = [queue.tasks[name] for queue in queues if name in queue.tasks]
        if len(found) == 1:
            return found[0]
        if found:
            message = f"task {name!r} is on several queues ({', '.join(t.queue for t in found)}); name one"
            raise InvalidTaskName(message, task_name=name, available_tasks=[name])
        available = self.task_names() if queue_name is None else list(queues[0].tasks)
        where = "no queue has a task" if queue_name is None else f"queue {queue_name!r} has no task"
        message = f"{where} {name!r}; tasks: {', '.join(available) or 'none'}"
        raise InvalidTaskName(message, task_name=name, available_tasks=available)


def load_catalog(import_paths: Sequence[str]) -> Catalog:
    """Imports the settings classes and reads them.

    Args:
        import_paths: ``package.module.ClassName``, or ``package.module`` that holds a ``WorkerSettings``.
            The current folder is searched too, as the ``arq`` command does.

    Raises:
        ConfigurationError: one cannot be imported, or is not what arq takes; the message names it.
    """
    return Catalog(read_queue(load_worker_settings(path), path) for path in import_paths)


def load_worker_settings(import_path: str) -> type:
    """The settings class at this path.

    Raises:
        ConfigurationError: there is none.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        found = import_attribute(import_path)
    except ConfigurationError:
        raise
    except Exception as error:  # whatever the user's module raises while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"AEGIS_QUEUES: {import_path} cannot be imported: {reason}") from error
    settings_class = getattr(found, "WorkerSettings", found)
    if not isinstance(settings_class, type):
        raise ConfigurationError(f"AEGIS_QUEUES: {import_path} is neither a settings class nor a module with one")
    return settings_class


def import_attribute(import_path: str) -> Any:
    """The module of this path, or else the attribute that its last part names."""
    parent, _, name = import_path.rpartition(".")
    if not parent:
        return importlib.import_module(import_path)
    module = importlib.import_module(parent)
    if hasattr(module, name):
        return getattr(module, name)
    return importlib.import_module(import_path)


def read_queue(settings_class: type, import_path: str) -> Queue:
    """The queue that a settings class describes; arq reads the class's own attributes only, so do we."""
    attributes = vars(settings_class)
    key = attributes.get("queue_name") or default_queue_name
    name = keys.queue_name(key)
    try:
        functions = [func(f) for f in attributes.get("declared_functions", attributes.get("functions", ()))]
    except (TypeError, RuntimeError, ImportError, AttributeError) as error:
        raise ConfigurationError(f"{import_path}: functions: {error}") from error
    return Queue(
        name=name,
        key=key,
        tasks={function.name: read_task(function, name, attributes) for function in functions},
        max_jobs=attributes.get("max_jobs", ARQ_MAX_JOBS),
        import_path=import_path,
        settings_class=settings_class,
    )


def read_task(function: Function, queue_name: str, attributes: Mapping[str, Any]) -> Task:
    timeout_s = function.timeout_s
    if timeout_s is None:
        timeout_s = to_seconds(attributes.get("job_timeout", ARQ_JOB_TIMEOUT_S))
    max_tries = function.max_tries if function.max_tries is not None else attributes.get("max_tries", ARQ_MAX_TRIES)
    return Task(
        name=function.name,
        queue=queue_name,
        summary=(inspect.getdoc(inspect.unwrap(function.coroutine)) or "").partition("\n")[0],
        signature=Signature(function.coroutine, task_name=function.name),
        timeout_s=math.inf if timeout_s is None else timeout_s,
        max_tries=max_tries,
    )
