"""``aegis-tasks tokens create``, ``list`` and ``revoke``: who may call the gateway."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
import typer

from bridge.settings import read_settings
from bridge.tokens import Token, Tokens, tokens_path
from cli.dead import read_duration_s
from cli.options import Json
from cli.printing import console, error_console, print_json, print_table

__all__ = ["tokens"]

tokens = typer.Typer(
    help="Who may call the gateway: make tokens, list them, revoke them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Who uses the token: letters, digits, '.', '_' and '-'.")]


@tokens.command("create")
def create_token(
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option(help="What it allows: tasks:read, tasks:write, events:read, events:write or admin. Repeatable."),
    ],
    rate: Annotated[str | None, typer.Option(help="Requests it may send, e.g. 100/s or 5000/h.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="AGE", help="How long it is valid, e.g. 12h or 90d.")] = None,
    json: Json = False,
) -> None:
    """Make a token and print it, once: it is stored nowhere. Gateways that run know it within a second.

    **Example:** `aegis-tasks tokens create shop --scope tasks:write --scope tasks:read --rate 100/s --expires 90d`
    """
    lifetime_s = read_duration_s(expires, "--expires")
    text, token = file_of_tokens().create(name, scope, rate=rate, lifetime_s=lifetime_s)
    if json:
        print_json({"token": text, **shown(token)})
        return
    console.print(text, markup=False, soft_wrap=True)
    hint = f"Keep it now, it is not shown again. Use it so: curl -H 'Authorization: Bearer {text[:14]}…' …"
    error_console.print(hint, style="dim", markup=False, soft_wrap=True)


@tokens.command("list")
def list_tokens(json: Json = False) -> None:
    """List the tokens: names, scopes, limits and expiry, never the tokens themselves.

    **Example:** `aegis-tasks tokens list --json`
    """
    found = file_of_tokens().read()
    if json:
        print_json([shown(token) for token in found])
    elif not found:
        console.print("no tokens", style="dim")
    else:
        print_table(["name", "id", "scopes", "rate", "created", "expires"], [row(token) for token in found])


@tokens.command("revoke")
def revoke_token(name: Name, json: Json = False) -> None:
    """Make a token invalid; gateways that run refuse it within two seconds.

    **Example:** `aegis-tasks tokens revoke shop`
    """
    file = file_of_tokens()
    token = file.revoke(name)
    if json:
        print_json({"revoked": token.name})
    else:
        console.print(f"{token.name} is revoked", markup=False)
        if not file.read():
            error_console.print(NONE_LEFT, style="yellow")


NONE_LEFT: Final = (
    "no token is left: gateways that run refuse everybody until there is another one; "
    "one that is started on 127.0.0.1 asks for none"
)


def file_of_tokens() -> Tokens:
    return Tokens(tokens_path(read_settings()))


def shown(token: Token) -> dict[str, Any]:
    """What may be told of a token."""
    told: dict[str, Any] = msgspec.to_builtins(token)
    del told["sha256"]
    return told


def row(token: Token) -> list[Any]:
    expires = "never" if token.expires_at is None else f"{token.expires_at:%Y-%m-%d %H:%M}"
    if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
        expires = f"expired {expires}"
    created = f"{token.created_at:%Y-%m-%d %H:%M}"
    return [token.name, token.id, " ".join(token.scopes), token.rate, created, expires]
