"""The ``system`` queue: checks and housekeeping."""

from workers.tasks.system_health import system_health_check
from workers.tasks.temp_files import cleanup_temp_files
from workers.worker_settings import queue


@queue("system")
class WorkerSettings:
    """15 jobs at a time, up to 300 s each."""

    functions = [system_health_check, cleanup_temp_files]
    max_jobs = 15
    job_timeout = 300
