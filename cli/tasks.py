"""``aegis-tasks tasks``: what can be enqueued."""

from bridge.catalog import Task, load_catalog
from bridge.settings import read_settings
from cli.options import Json
from cli.printing import print_json, print_table

__all__ = ["tasks"]


def tasks(json: Json = False) -> None:
    """List the tasks with their queues and arguments.

    **Example:** `aegis-tasks tasks --json`
    """
    found = [task for queue in load_catalog(read_settings().queues).queues.values() for task in queue.tasks.values()]
    if json:
        print_json([task.describe() for task in found])
    else:
        rows = [(task.name, task.queue, arguments(task), task.summary) for task in found]
        print_table(["task", "queue", "arguments", "what it does"], rows)


def arguments(task: Task) -> str:
    return ", ".join(name if name in task.signature.required else f"[{name}]" for name in task.signature.names)
