"""The ``media`` queue: a place for tasks that are yet to be written."""

from arq.worker import Function

from workers.worker_settings import queue


@queue("media")
class WorkerSettings:
    """No tasks defined."""

    functions: list[Function] = []
