"""``aegis-tasks enqueue``: one job."""

from typing import Annotated, Any

import msgspec
import typer

from bridge.enqueue import Enqueued, TaskRequest
from bridge.errors import InvalidRequest
from bridge.inspector import JobResult
from bridge.redis_backend import RedisBackend
from cli.context import open_backend, run
from cli.jobs import print_result
from cli.options import Json, QueueOption
from cli.printing import console, print_json, this_command
from cli.wait import wait_for_result

__all__ = ["enqueue"]


def enqueue(
    task: Annotated[str, typer.Argument(help="The task's name; `aegis-tasks tasks` lists them.")],
    queue: QueueOption = None,
    arg: Annotated[
        list[str] | None, typer.Option("--arg", "-a", metavar="KEY=VALUE", help="An argument; may be repeated.")
    ] = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="Arguments as a JSON object, or as an array by position.")
    ] = None,
    delay: Annotated[float | None, typer.Option(min=0, help="Start no earlier than in this many seconds.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="An id of your choice; refused if it exists.")] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the job to end and print its result.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="With --wait: longest wait, in seconds.")] = 300,
    json: Json = False,
) -> None:
    """Enqueue a task, and print its id and what to type next.

    **Examples:** `aegis-tasks enqueue io_simulation_task --queue load_test`,
    `aegis-tasks enqueue io_simulation_task -a delay_ms=50 --wait`
    """
    positional, keyword = read_arguments(args, arg or [])
    request = convert(
        task_name=task, queue_type=queue, args=positional, kwargs=keyword, delay_seconds=delay, task_id=id
    )
    run(store(request, timeout_s=timeout if wait else None, json=json))


def convert(**fields: Any) -> TaskRequest:
    try:
        return msgspec.convert(fields, TaskRequest)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None


def read_arguments(document: str | None, pairs: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments of ``--args`` and ``-a``; of both, ``-a`` wins."""
    positional: list[Any] = []
    keyword: dict[str, Any] = {}
    if document is not None:
        try:
            given = msgspec.json.decode(document, type=list[Any] | dict[str, Any])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidRequest(f"--args is not a JSON object or array: {error}", path="--args") from None
        if isinstance(given, list):
            positional = given
        else:
            keyword = given
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise InvalidRequest(f"-a {pair!r} is not KEY=VALUE", path="-a")
        keyword[name] = value
    return positional, keyword


async def store(request: TaskRequest, *, timeout_s: float | None, json: bool) -> None:
    async with open_backend() as backend:
        # Values of -a are text: the signature turns them into what it wants.
        enqueued = await backend.enqueuer.enqueue(request, strict=False)
        result: JobResult | None = None
        if timeout_s is not None:
            if not json:
                await tell(enqueued, backend, is_waiting=True)
            result = await wait_for_result(
                backend, enqueued.task_id, after=enqueued.event_id, timeout_s=timeout_s, quiet=json
            )
        elif not json:
            await tell(enqueued, backend, is_waiting=False)
    if result is not None:
        print_result(result, json=json)
    elif json:
        print_json(enqueued)


async def tell(enqueued: Enqueued, backend: RedisBackend, *, is_waiting: bool) -> None:
    """The id, and what to do next: which depends on whether a worker is there."""
    queue = await backend.inspector.queue(backend.catalog.queue(enqueued.queue_type))
    console.print(enqueued.task_id, style="bold", markup=False)
    console.print(enqueued.message, markup=False)
    if queue.message == "worker offline":
        where = "in another terminal: " if is_waiting else "next: "
        console.print(f"no worker is running; {where}{this_command()} burst {queue.name}", style="yellow", markup=False)
    elif not is_waiting:
        console.print(f"next: {this_command()} result {enqueued.task_id} --wait 30", style="dim", markup=False)
