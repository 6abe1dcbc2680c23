"""A queue of your own: a task is an async function, a queue is a class that lists its tasks."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from arq import Retry
from msgspec import Meta, Struct

from workers.worker_settings import queue


class Receipt(Struct):
    """What a caller reads as the result."""

    user_id: int
    template: str
    sent_at: datetime


async def send_welcome_email(
    ctx: dict[str, Any],
    user_id: Annotated[int, Meta(ge=1)],
    template: Literal["short", "long"] = "short",
) -> Receipt:
    """Sends the welcome mail to a new user."""
    return Receipt(user_id=user_id, template=template, sent_at=datetime.now(UTC))


async def fetch_bounces(ctx: dict[str, Any], *, since: datetime) -> int:
    """Counts the mails that came back; tries again later while the mail server is busy."""
    if ctx["job_try"] == 1:
        raise Retry(defer=0.2)  # seconds until the next attempt
    return (datetime.now(UTC) - since).days


@queue("mail")
class WorkerSettings:
    """10 jobs at a time, up to 30 s each."""

    functions = [send_welcome_email, fetch_bounces]  # noqa: RUF012
    max_jobs = 10
    job_timeout = 30
