"""``aegis-tasks status``, ``result``, ``abort`` and ``retry``: one job."""

from typing import Annotated, Any, Final

import msgspec
import typer
from msgspec import UNSET

from bridge.inspector import JobResult, JobStatus
from cli.context import open_backend, run
from cli.exit_codes import ExitCode
from cli.options import Json
from cli.printing import STATE_STYLES, console, print_json, progress_text
from cli.wait import wait_for_result

__all__ = ["abort", "print_result", "result", "retry", "status"]

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `enqueue` printed it.")]


def status(id: JobId, json: Json = False) -> None:
    """Show what is known of a job now; exit code 3 when nothing is.

    **Example:** `aegis-tasks status 0190f5fe7c9d7b3b8c1f3a6d2e4b5c6d`
    """
    found = run(read_status(id))
    if json:
        print_json(found)
        return
    for name, value in msgspec.structs.asdict(found).items():
        if value is not None:
            style = STATE_STYLES.get(str(value), "") if name == "status" else ""
            console.print(f"{name.replace('_', ' '):<17}{shown(value)}", style=style, markup=False, soft_wrap=True)


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return progress_text(value)
    return f"{value.type}: {value.message}" if hasattr(value, "message") else str(value)


async def read_status(job_id: str) -> JobStatus:
    async with open_backend() as backend:
        return await backend.inspector.status(job_id)


def result(
    id: JobId,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the job to end.", min=0)] = 0,
    json: Json = False,
) -> None:
    """Print a job's result; exit code 1 when it failed, 5 when it has not ended.

    **Example:** `aegis-tasks result 0190f5fe7c9d7b3b8c1f3a6d2e4b5c6d --wait 30`
    """
    print_result(run(read_result(id, wait_s=wait, quiet=json)), json=json)


async def read_result(job_id: str, *, wait_s: float, quiet: bool) -> JobResult:
    async with open_backend() as backend:
        now = await backend.inspector.status(job_id)
        if now.result_available or not wait_s:
            return await backend.inspector.result(job_id)
        return await wait_for_result(backend, job_id, after=now.event_id, timeout_s=wait_s, quiet=quiet)


EXIT_CODES: Final = {"succeeded": ExitCode.DONE, "failed": ExitCode.FAILED, "aborted": ExitCode.FAILED}


def print_result(found: JobResult, *, json: bool) -> None:
    """Prints the result and leaves with the exit code that fits it."""
    if json:
        print_json(found)
    elif found.error is not UNSET:
        console.print(f"{found.status}: {shown(found.error)}", style="red", markup=False, soft_wrap=True)
    elif found.status == "succeeded":
        print_json(found.result)
    else:
        console.print(f"{found.status}: no result yet", style=STATE_STYLES.get(found.status, ""), markup=False)
    raise typer.Exit(EXIT_CODES.get(found.status, ExitCode.TIMED_OUT))


def abort(
    id: JobId,
    reason: Annotated[str | None, typer.Option(help="Why; the event repeats it.")] = None,
    json: Json = False,
) -> None:
    """Abort a job, waiting or running; exit code 1 when it had ended before, 3 when nothing is known of it.

    **Example:** `aegis-tasks abort 0190f5fe7c9d7b3b8c1f3a6d2e4b5c6d`
    """
    outcome = run(abort_job(id, reason=reason))
    if json:
        print_json({"task_id": id, "outcome": outcome})
    else:
        console.print(ABORTED[outcome], markup=False)
    if outcome == "ended":
        raise typer.Exit(ExitCode.FAILED)


ABORTED: Final = {
    "aborted": "aborted",
    "asked": "its worker has been told to abort it",
    "ended": "it had ended before",
}


async def abort_job(job_id: str, *, reason: str | None) -> str:
    async with open_backend() as backend:
        return await backend.control.abort(job_id, by="cli", reason=reason)


def retry(id: JobId, json: Json = False) -> None:
    """Run a failed job again, under its id and with its arguments; exit code 1 when it has not failed, 3 when unknown.

    **Example:** `aegis-tasks retry 0190f5fe7c9d7b3b8c1f3a6d2e4b5c6d`
    """
    queue_name = run(retry_job(id))
    if json:
        print_json({"task_id": id, "queue_type": queue_name, "outcome": "requeued"})
    else:
        console.print(f"requeued on {queue_name}", markup=False)


async def retry_job(job_id: str) -> str:
    async with open_backend() as backend:
        return await backend.letters.retry_one(job_id)
