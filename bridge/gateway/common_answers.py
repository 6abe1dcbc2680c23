"""What any route may answer, told in the OpenAPI document in one place."""

from http import HTTPStatus
from typing import Final

from litestar import Litestar
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Reference, SecurityScheme
from litestar.routes import HTTPRoute

from bridge.gateway.access import SCOPE_OPTION
from bridge.gateway.problems import MEDIA_TYPE, Problem

__all__ = ["SECURITY_SCHEMES", "describe_common_answers"]

BEARER: Final = "bearer"
SECURITY_SCHEMES: Final[dict[str, SecurityScheme | Reference]] = {
    BEARER: SecurityScheme(
        type="http",
        scheme="bearer",
        description="A token of `aegis-tasks tokens create`. A gateway that listens on this machine alone asks for "
        "none, as long as there is none.",
    )
}


def problem(description: str) -> ResponseSpec:
    return ResponseSpec(Problem, description=description, media_type=MEDIA_TYPE, generate_examples=False)


OF_EVERY_ROUTE: Final[dict[int, ResponseSpec]] = {
    HTTPStatus.BAD_REQUEST: problem("The request cannot be read"),
    HTTPStatus.MISDIRECTED_REQUEST: problem("The Host header is none that a gateway without tokens answers to"),
}
OF_A_CLOSED_ROUTE: Final[dict[int, ResponseSpec]] = {
    **OF_EVERY_ROUTE,
    HTTPStatus.UNAUTHORIZED: problem("There is no valid token"),
    HTTPStatus.FORBIDDEN: problem("The token lacks the scope"),
    HTTPStatus.TOO_MANY_REQUESTS: problem("The caller's limit is used up; Retry-After says for how long"),
    HTTPStatus.SERVICE_UNAVAILABLE: problem("Redis does not answer now; try again"),
}
OF_A_BODY: Final[dict[int, ResponseSpec]] = {
    HTTPStatus.REQUEST_TIMEOUT: problem("The body did not come in time"),
}


def describe_common_answers(app: Litestar) -> None:
    """Each route's description has them, where its author has not described the status, and the need of a token."""
    for route in app.routes:
        assert isinstance(route, HTTPRoute)  # noqa: S101 - `Authentication.guard` has seen to it
        for handler in route.route_handlers:
            needed = handler.opt[SCOPE_OPTION]
            common = OF_EVERY_ROUTE if needed is None else OF_A_CLOSED_ROUTE
            if "POST" in handler.http_methods:
                common = {**common, **OF_A_BODY}
            handler.responses = {**common, **(handler.responses or {})}
            if needed is not None:
                handler.security = [{BEARER: [needed]}]
