"""Who calls, and which scope a caller needs for a route: every route says so."""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import msgspec

__all__ = ["ANONYMOUS", "OPEN", "SCOPES", "Caller", "Scope", "caller_of", "needs"]

Scope = Literal["tasks:write", "tasks:read", "events:read", "events:write", "admin"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
SCOPE_OPTION: Final = "scope"
OPEN: Final[dict[str, Any]] = {SCOPE_OPTION: None}
"""``opt=OPEN``: anybody may call this route."""


def needs(scope: Scope) -> dict[str, Any]:
    """``opt=needs("tasks:read")``: only who has this scope, or ``admin``, may call this route."""
    return {SCOPE_OPTION: scope}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request: ``name`` is that of the token, and ``token_id`` tells it from a later one of that name."""

    name: str
    token_id: str = ""
    scopes: frozenset[str]


ANONYMOUS: Final = Caller(name="anonymous", scopes=frozenset(SCOPES))
"""Everybody, where no token is asked for."""
CALLER: Final = "aegis_caller"


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Who sent the request of this ASGI scope."""
    caller: Caller = scope.get(CALLER, ANONYMOUS)
    return caller
