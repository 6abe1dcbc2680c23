"""The ``load_test`` queue: work of known kinds, to see how much the system takes."""

from workers.tasks.cpu_intensive import cpu_intensive_task
from workers.tasks.failure_testing import failure_testing_task
from workers.tasks.io_simulation import io_simulation_task
from workers.tasks.load_test_orchestrator import load_test_orchestrator
from workers.tasks.memory_operations import memory_operations_task
from workers.tasks.noop import noop_task
from workers.worker_settings import queue


@queue("load_test")
class WorkerSettings:
    """50 jobs at a time, up to 60 s each."""

    functions = [
        cpu_intensive_task,
        io_simulation_task,
        memory_operations_task,
        failure_testing_task,
        noop_task,
        load_test_orchestrator,
    ]
    max_jobs = 50
    job_timeout = 60
