"""``aegis-tasks enqueue``: one job, or one for each line of standard input."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from bridge.backend import Backend
from bridge.enqueue import Enqueued, TaskRequest
from bridge.errors import Forbidden, InvalidRequest
from bridge.inspector import JobResult
from cli.completion import complete_queue, complete_task
from cli.context import open_backend, run
from cli.jobs import print_result
from cli.options import Json
from cli.printing import console, print_json, this_command
from cli.wait import wait_for_result

__all__ = ["enqueue"]


def enqueue(
    task: Annotated[
        str | None,
        typer.Argument(help="The task's name; `aegis-tasks tasks` lists them.", autocompletion=complete_task),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue", "-q", help="Its queue; needed only if several have the task.", autocompletion=complete_queue
        ),
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option("--arg", "-a", metavar="KEY=VALUE", help="An argument; may be repeated.")
    ] = None,
    args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Arguments as a JSON object, or as an array by position; -a wins over it."),
    ] = None,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin",
            help="One job for each line of standard input: TASK's arguments as JSON, or, without TASK, a request as "
            "over HTTP.",
        ),
    ] = False,
    delay: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Start no earlier than in this many seconds.")
    ] = None,
    run_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Start no earlier than then: 2026-01-31T12:00, or with an offset."),
    ] = None,
    expires: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Drop the job unless it starts within so many seconds.")
    ] = None,
    job_timeout: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Cancel a run of it that takes longer, in seconds.")
    ] = None,
    max_tries: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="So many attempts, the first included.")
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="An id of your choice; refused if it exists.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Said again, it gives the same job instead of another one.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the job to end and print its result.")] = False,
    timeout: Annotated[float, typer.Option(min=0, metavar="S", help="With --wait: longest wait, in seconds.")] = 300,
    json: Json = False,
) -> None:
    """Enqueue a task, and print its id and what to type next; with --stdin many, and print how many.

    Exit code 1 when something was refused, 2 when the arguments are wrong; with --wait as `result`.

    **Examples:** `aegis-tasks enqueue io_simulation_task -a delay_ms=50 --wait`,
    `aegis-tasks enqueue io_simulation_task --args '{"delay_ms": 50}' --delay 60`,
    `aegis-tasks enqueue io_simulation_task --stdin < arguments.ndjson`
    """
    common = {
        "task_name": task,
        "queue_type": queue,
        "delay_seconds": delay,
        "run_at": None if run_at is None else read_time(run_at),
        "expires_seconds": expires,
        "timeout_seconds": job_timeout,
        "max_tries": max_tries,
    }
    said: dict[str, Any] = {name: value for name, value in common.items() if value is not None}
    if stdin:
        alone = {"-a": arg, "--args": args, "--id": id, "--idempotency-key": idempotency_key, "--wait": wait}
        refuse_beside_stdin([option for option, value in alone.items() if value])
        from cli.enqueue_lines import enqueue_lines  # with its progress bar, which no single job needs

        enqueue_lines(said, json=json)
        return
    if task is None:
        raise InvalidRequest("say which TASK; `aegis-tasks tasks` lists them", path="TASK")
    positional, keyword = read_arguments(args, arg or [])
    request = convert(**said, args=positional, kwargs=keyword, task_id=id)
    run(store(request, idempotency_key, timeout_s=timeout if wait else None, json=json))


def refuse_beside_stdin(options: list[str]) -> None:
    if options:
        message = f"{', '.join(options)}: not together with --stdin, where each line says it for its own job"
        raise InvalidRequest(message, path=options[0])


def read_time(text: str) -> datetime:
    """A time without an offset is one of this machine's zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"--run-at {text!r} is no time; write 2026-01-31T12:00:00Z", path="--run-at") from None
    return moment if moment.tzinfo else moment.astimezone()


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


async def store(request: TaskRequest, idempotency_key: str | None, *, timeout_s: float | None, json: bool) -> None:
    async with open_backend() as backend:
        # Values of -a are text: the signature turns them into what it wants.
        enqueued = await backend.enqueue(request, strict=False, idempotency_key=idempotency_key)
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


async def tell(enqueued: Enqueued, backend: Backend, *, is_waiting: bool) -> None:
    """The id, and what to do next: which depends on whether a worker is there."""
    console.print(enqueued.task_id, style="bold", markup=False)
    console.print(enqueued.message, markup=False)
    try:
        queue = await backend.queue(enqueued.queue_type)
    except Forbidden:  # who may enqueue need not be allowed to look
        return
    if queue.message == "worker offline":
        where = "in another terminal: " if is_waiting else "next: "
        console.print(f"no worker is running; {where}{this_command()} burst {queue.name}", style="yellow", markup=False)
    elif not is_waiting:
        console.print(f"next: {this_command()} result {enqueued.task_id} --wait 30", style="dim", markup=False)
