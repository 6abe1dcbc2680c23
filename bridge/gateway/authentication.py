"""Who may call which route: every one is closed unless its ``opt`` says otherwise, see `bridge.gateway.access`."""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, NoReturn

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Scope, Send

from bridge.errors import ConfigurationError, CrossSiteRequest, Forbidden, Unauthorized, WrongHost
from bridge.gateway.access import ANONYMOUS, CALLER, SCOPE_OPTION, Caller
from bridge.gateway.server import is_loopback
from bridge.rate import Rate, read_rate
from bridge.rate_limit import RateLimit
from bridge.settings import Settings
from bridge.tokens import Known, KnownTokens

__all__ = ["Authentication"]

SAFE_METHODS: Final = {"GET", "HEAD", "OPTIONS"}
NO_OTHER_SITE: Final = {b"same-origin", b"none"}
LOCALHOST: Final = "localhost"


class Authentication:
    """Lets a request through to its route, or raises why not.

    Its `layer` is the application's outermost middleware: hooks of Litestar would not see the routes that
    `bridge.gateway.direct_answers` answers.

    The gateway is open, which is that it asks nobody for a token, while there has been none and only this machine
    reaches it (or the operator insists). Then a browser of this machine could be made to call it by any page, so names
    and origins are looked at instead.

    Args:
        settings: where it listens, to which names it answers, and the limit of those whose token has none.
        tokens: those there are.
        rate_limit: counts requests.
        is_insecure: the operator insists.
    """

    def __init__(
        self, settings: Settings, tokens: KnownTokens, rate_limit: RateLimit, *, is_insecure: bool = False
    ) -> None:
        self.tokens = tokens
        self.rate_limit = rate_limit
        self.may_be_open = is_insecure or is_loopback(settings.host)
        self.default_rate: Rate | None = read_rate(settings.rate_limit) if settings.rate_limit else None
        self.answers_to: Callable[[bytes], bool] = lru_cache(256)(knows_hosts({settings.host, *settings.allowed_hosts}))

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked for a token."""
        return self.may_be_open and not self.tokens.were_any

    def layer(self, app: ASGIApp) -> ASGIApp:
        """The application, or a part of it, for those who are admitted."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            await self.admit(scope)
            await app(scope, receive, send)

        return guarded

    async def admit(self, scope: Any) -> None:
        """The caller may have this route, and is in the ASGI scope from now on.

        Raises:
            Unauthorized: it needs a token, and there is no valid one.
            Forbidden: the token lacks the scope.
            RateLimited: the caller has sent too many requests.
            WrongHost: an open gateway is asked by a name that it does not know.
            CrossSiteRequest: an open gateway is asked by a page of another site.
        """
        needed: str | None = scope["route_handler"].opt[SCOPE_OPTION]
        self.tokens.refresh()
        if self.is_open:
            self._check_origin(scope["method"], scope["headers"])
            if needed is not None:
                scope[CALLER] = ANONYMOUS
                if self.default_rate is not None:
                    await self.rate_limit.take(ANONYMOUS.name, self.default_rate)
        elif needed is not None:
            known = self._authenticate(scope["headers"])
            scopes = known.caller.scopes
            if needed not in scopes and "admin" not in scopes:
                raise Forbidden(known.caller.name, needed_scope=needed)
            scope[CALLER] = known.caller
            rate = known.rate or self.default_rate
            if rate is not None:
                await self.rate_limit.take(known.caller.name, rate)

    def still_admits(self, caller: Caller) -> bool:
        """Whether an answer that is being sent to this caller may go on: its token has not been revoked meanwhile."""
        self.tokens.refresh()
        return self.is_open if caller is ANONYMOUS else self.tokens.has(caller)

    def guard(self, app: Litestar) -> None:
        """Every route of the application is one that is guarded by this, and says what it needs.

        Raises:
            ConfigurationError: one is not; it is a bug of its author.
        """
        for route in app.routes:
            if not isinstance(route, HTTPRoute):
                refuse(route.path, "is no plain HTTP route")
            own = [handler for handler in route.route_handlers if not is_of_the_framework(handler)]
            first = min(own, key=lambda handler: sorted(handler.http_methods))
            for handler in route.route_handlers:
                if handler not in own:  # it tells the methods, and needs what the route needs
                    handler.opt = {**handler.opt, SCOPE_OPTION: first.opt.get(SCOPE_OPTION, "admin")}
                if SCOPE_OPTION not in handler.opt:
                    refuse(route.path, "does not say which scope it needs")
                if handler.cache:
                    refuse(route.path, "has its answers cached, which would be given to anybody")
                if handler.resolve_middleware()[-1:] != [self.layer]:
                    refuse(route.path, "is not behind the guard")

    def _authenticate(self, headers: Any) -> Known:
        given = [value for name, value in headers if name == b"authorization"]
        if not given:
            raise Unauthorized("send a token: Authorization: Bearer aegis_…", is_missing=True)
        scheme, _, text = given[0].partition(b" ")
        known = self.tokens.find(text.strip()) if len(given) == 1 and scheme.lower() == b"bearer" else None
        if known is None:
            raise Unauthorized("the token is unknown, revoked or expired, or no bearer token", is_missing=False)
        return known

    def _check_origin(self, method: str, headers: Any) -> None:
        host = b""
        for name, value in headers:
            if name == b"host":
                host = value
                if not self.answers_to(value):
                    raise WrongHost(value.decode(errors="replace"))
        if method in SAFE_METHODS:
            return
        for name, value in headers:
            if name == b"sec-fetch-site" and value not in NO_OTHER_SITE:
                raise CrossSiteRequest
            if name == b"origin" and value.partition(b"://")[2] != host:
                raise CrossSiteRequest


def is_of_the_framework(handler: HTTPRouteHandler) -> bool:
    """Whether Litestar made it by itself to answer OPTIONS."""
    return handler.fn.__qualname__.startswith(f"{HTTPRoute.create_options_handler.__qualname__}.")


def refuse(path: str, why: str) -> NoReturn:
    raise ConfigurationError(f"the route {path} {why}")


def knows_hosts(names: set[str]) -> Callable[[bytes], bool]:
    """Whether a ``Host`` header has one of these names, or one that no page of another site can have, or none.

    Such a page's own name can be made to lead here (DNS rebinding); an address or ``localhost`` cannot be its name.
    """
    known = {LOCALHOST, *(name.lower().rstrip(".") for name in names)}

    def knows(host: bytes) -> bool:
        text = host.decode("latin-1").lower()
        if text.startswith("["):
            name = text[1:].partition("]")[0]
        else:
            name = text if text.count(":") > 1 else text.partition(":")[0]
        name = name.rstrip(".")
        return name == "" or name in known or name.endswith(f".{LOCALHOST}") or is_address(name)

    return knows


def is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
