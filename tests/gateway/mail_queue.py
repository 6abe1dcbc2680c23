"""A queue of a user's own, whose tasks take arguments of many kinds."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from bridge.settings import Settings
from workers.worker_settings import queue


class Address(Struct, frozen=True):
    street: str
    zip_code: int


async def send_email(ctx: dict[str, Any], user_id: int, subject: str = "hello", *, urgent: bool = False) -> None:
    """Sends an email."""


async def print_label(ctx: dict[str, Any], address: Address, copies: list[int] | None = None) -> None:
    """Prints a label."""


async def remind(ctx: dict[str, Any], *, at: datetime) -> None:
    """Reminds of something."""


async def keep_anything(ctx: dict[str, Any], *args: Any, **kwargs: Any) -> None:
    """Takes what comes."""


@queue("mail", settings=Settings(redis_url="memory://"))
class WorkerSettings:
    functions = [send_email, print_label, remind, keep_anything]  # noqa: RUF012 - arq's own form
