"""``aegis-tasks tasks``: what can be enqueued."""

from bridge.catalog import TaskDescription, load_catalog
from bridge.settings import read_settings
from cli import gateway_options
from cli.options import Json
from cli.printing import print_json, print_table

__all__ = ["tasks"]


def tasks(json: Json = False) -> None:
    """List the tasks with their queues and arguments; those that may be left out are in brackets.

    **Example:** `aegis-tasks tasks --json`
    """
    found = read()
    if json:
        print_json(found)
    else:
        rows = [(task.name, task.queue, arguments(task), task.summary) for task in found]
        print_table(["task", "queue", "arguments", "what it does"], rows)


def read() -> list[TaskDescription]:
    """Those of the gateway, or else of the settings: which takes no Redis."""
    settings = read_settings()
    if gateway_options.chosen(settings)[0]:
        from cli.context import run  # a client of Redis, which takes longer to load than all else here

        return run(ask())
    return [task.describe() for queue in load_catalog(settings.queues).queues.values() for task in queue.tasks.values()]


async def ask() -> list[TaskDescription]:
    from cli.context import open_backend

    async with open_backend() as backend:
        return (await backend.tasks()).tasks


def arguments(task: TaskDescription) -> str:
    required = task.arguments.get("required", ())
    return ", ".join(name if name in required else f"[{name}]" for name in task.arguments.get("properties", ()))
