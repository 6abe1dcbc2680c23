"""``--url`` and ``--token``: which gateway to work through, told before or after the name of any command."""

from copy import copy
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from bridge.settings import Settings

__all__ = ["TOKEN_HELP", "URL_HELP", "add_to", "chosen", "forget", "remember"]

URL_HELP: Final = "Work through this gateway instead of Redis; by default AEGIS_URL."
TOKEN_HELP: Final = "The gateway's token; by default AEGIS_TOKEN, which others on this machine cannot see."  # noqa: S105

told: Final[dict[str, str]] = {}
"""What this command line says: ``url``, ``token``."""


def remember(parameter: typer.CallbackParam, value: str | None) -> None:
    """Keeps what an option says; the last one counts."""
    if value is not None and parameter.name:
        told[parameter.name] = value


def forget() -> None:
    """A new command line begins."""
    told.clear()


def chosen(settings: "Settings") -> tuple[str, str]:
    """The gateway's address, empty for none, and the token for it."""
    return told.get("url", settings.url), told.get("token", settings.token)


def add_to(command: Any, options: list[Any], *, needs_redis: bool) -> None:
    """The command, or each one of a group, takes these options too.

    Args:
        command: where to.
        options: those of the root command.
        needs_redis: it works on Redis itself, and says so when it is told of a gateway.
    """
    for one in [command, *getattr(command, "commands", {}).values()]:
        one.params = [*one.params, *(refused(option, one.name) if needs_redis else option for option in options)]


def refused(option: Any, command_name: str) -> Any:
    """The option where a gateway is of no use."""

    def refuse(_: Any, __: Any, value: str | None) -> None:
        if value is not None or "url" in told:
            from bridge.errors import InvalidRequest

            message = f"`aegis-tasks {command_name}` works on Redis itself, not through a gateway: leave --url out"
            raise InvalidRequest(message, path="--url")

    hidden = copy(option)
    hidden.hidden = True
    hidden.callback = refuse
    return hidden
