"""Who may call which route: tokens and their scopes, and what protects a gateway that asks for none."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, WebSocket, get
from litestar.handlers import WebsocketRouteHandler
from litestar.routes import HTTPRoute

from bridge import tokens as tokens_module
from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.catalog import Catalog
from bridge.errors import ConfigurationError
from bridge.gateway.access import OPEN, SCOPE_OPTION, SCOPES, needs
from bridge.gateway.app import create_app
from bridge.gateway.authentication import Authentication
from bridge.rate_limit import RateLimit
from bridge.scripts import Scripts
from bridge.settings import Settings
from bridge.tokens import KnownTokens, Tokens
from tests.gateway.guarded import Guarded, bearer
from tests.gateway.problem import ENQUEUE, problem_in

TASKS = "/api/v1/tasks/"
JOB = {"task_name": "io_simulation_task"}

pytestmark = pytest.mark.usefixtures("redis")


@pytest.fixture
def guarded(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    monkeypatch.setattr(tokens_module, "LOOK_AGAIN_S", 0)  # a gateway looks at the file with each request
    return Guarded(tmp_path, catalog)


# --- the route table ------------------------------------------------------------------------------


def routes_of(settings: Settings, catalog: Catalog) -> list[tuple[str, str, Any]]:
    """Method, address and handler of every route, those of the framework and of files included."""
    app = create_app(settings, catalog, open_redis(settings))
    found: list[tuple[str, str, Any]] = []
    for route in app.routes:
        assert isinstance(route, HTTPRoute)
        path = route.path_format.replace("{file_path}", "swagger-ui.css")
        for part in ("{task_id}", "{queue}", "{path}", "{id}"):
            path = path.replace(part, "some")
        assert "{" not in path, f"put something into {path}"
        found += [(method, path, handler) for handler in route.route_handlers for method in handler.http_methods]
    return found


async def test_every_route_that_is_not_open_asks_for_a_token_and_its_scope(guarded: Guarded) -> None:
    routes = routes_of(guarded.settings, guarded.catalog)
    tokens = {scope: guarded.token(scope, name=scope.replace(":", "-")) for scope in SCOPES}
    async with guarded.gateway() as client:
        for method, path, handler in routes:
            needed = handler.opt[SCOPE_OPTION]
            answer = await client.request(method, path)
            if needed is None:
                assert answer.status_code not in {401, 403}, f"{method} {path}"
                continue
            assert needed in SCOPES
            assert answer.status_code == 401, f"{method} {path}"
            assert answer.headers["www-authenticate"] == "Bearer"
            for scope in set(SCOPES) - {needed, "admin"}:
                answer = await client.request(method, path, headers=bearer(tokens[scope]))
                assert answer.status_code == 403, f"{method} {path} {scope}"


async def test_open_routes_are_few(guarded: Guarded) -> None:
    opened = {path for _, path, handler in routes_of(guarded.settings, guarded.catalog) if not handler.opt["scope"]}
    assert {path.removeprefix("/api/v1") for path in opened} == {
        *("/", "/health", "/health/ready"),
        *("/schema", "/schema/some", "/schema/swagger", "/schema/openapi.json", "/schema-assets/swagger-ui.css"),
    }


@get("/silent")
async def silent() -> str:
    return "what nobody should see"


@get("/cached", opt=needs("admin"), cache=True)
async def cached() -> str:
    return "what nobody should see"


@get("/plain", opt=needs("admin"))
async def plain() -> str:
    return "what nobody should see"


@WebsocketRouteHandler("/socket", opt=OPEN)
async def websocket(socket: WebSocket[Any, Any, Any]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (silent, "/silent does not say which scope it needs"),
        (cached, "/cached has its answers cached"),
        (websocket, "/socket is no plain HTTP route"),
    ],
)
async def test_route_that_is_not_guarded_stops_the_program(tmp_path: Path, handler: Any, why: str) -> None:
    tokens = KnownTokens(Tokens(tmp_path / "tokens.json"))
    authentication = Authentication(Settings(), tokens, RateLimit(Scripts(AegisRedis(), events_max_len=1)))
    app = Litestar([handler], middleware=[authentication.layer], openapi_config=None)
    with pytest.raises(ConfigurationError, match=why):
        authentication.guard(app)


async def test_layer_in_front_of_the_guard_stops_the_program(tmp_path: Path) -> None:
    tokens = KnownTokens(Tokens(tmp_path / "tokens.json"))
    authentication = Authentication(Settings(), tokens, RateLimit(Scripts(AegisRedis(), events_max_len=1)))
    for middleware in ([], [lambda app: app, authentication.layer]):
        app = Litestar([plain], middleware=middleware, openapi_config=None)
        with pytest.raises(ConfigurationError, match="/plain is not behind the guard"):
            authentication.guard(app)


# --- tokens ---------------------------------------------------------------------------------------


async def test_token_with_the_scope_may_and_another_is_told_what_it_lacks(guarded: Guarded) -> None:
    writer, reader = guarded.token("tasks:write"), guarded.token("tasks:read", name="reader")
    async with guarded.gateway() as client:
        assert (await client.post(ENQUEUE, json=JOB, headers=bearer(writer))).status_code == 202
        assert (await client.get(TASKS, headers=bearer(reader))).status_code == 200
        answer = await client.get(TASKS, headers=bearer(writer))
        problem = problem_in(answer, 403, "forbidden")
        assert problem["needed_scope"] == "tasks:read"
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="tasks:read"'


async def test_admin_may_everything(guarded: Guarded) -> None:
    admin = guarded.token("admin")
    async with guarded.gateway() as client:
        assert (await client.post(ENQUEUE, json=JOB, headers=bearer(admin))).status_code == 202
        assert (await client.get(TASKS, headers=bearer(admin))).status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic YTpi",
        b"Bearer aegis",
        b"Bearer aegis_",
        b"Bearer aegis__",
        b"Bearer aegis_00000000_" + b"A" * 43,
        b"Bearer \xff\xfe\x80",
        "Bearer aegis_ключ_ключ".encode(),
        b"Bearer " + b"_" * 100_000,
        b"Bearer " + b"x" * 100_000,
        b"\xff" * 1000,
        b"Digest username=x, realm=_, nonce=_",
    ],
    ids=lambda value: repr(value[:30]),
)
async def test_whatever_else_the_header_holds_is_401(guarded: Guarded, value: bytes) -> None:
    guarded.token("admin")
    async with guarded.gateway() as client:
        answer = await client.get(TASKS, headers={b"Authorization": value})
        assert "aegis_0" not in answer.text
        problem_in(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_scheme_is_written_as_the_caller_likes(guarded: Guarded) -> None:
    token = guarded.token("admin")
    async with guarded.gateway() as client:
        for value in (f"bearer {token}", f"BEARER  {token}", f"Bearer {token} "):
            assert (await client.get(TASKS, headers={"Authorization": value})).status_code == 200, value


async def test_two_authorizations_are_none(guarded: Guarded) -> None:
    token = f"Bearer {guarded.token('admin')}"
    async with guarded.gateway() as client:
        answer = await client.get(TASKS, headers=[("Authorization", token), ("Authorization", token)])
        problem_in(answer, 401, "unauthorized")


async def test_wrong_token_does_not_matter_to_an_open_route(guarded: Guarded) -> None:
    guarded.token("admin")
    async with guarded.gateway() as client:
        assert (await client.get("/health", headers=bearer("wrong"))).status_code == 200


async def test_refused_request_is_not_read_and_stores_nothing(guarded: Guarded, redis: AegisRedis) -> None:
    guarded.token("admin")
    async with guarded.gateway() as client:
        for body in (b"{", b" " * 5_000_000, b'{"task_name": "io_simulation_task"}'):
            problem_in(await client.post(ENQUEUE, content=body), 401, "unauthorized")
    assert await redis.dbsize() == 0


# --- when a gateway is open -----------------------------------------------------------------------


async def test_first_token_closes_an_open_gateway_and_the_last_does_not_open_it(guarded: Guarded) -> None:
    async with guarded.gateway() as client:
        assert (await client.get(TASKS)).status_code == 200
        token = guarded.token("tasks:read")
        problem_in(await client.get(TASKS), 401, "unauthorized")
        assert (await client.get(TASKS, headers=bearer(token))).status_code == 200
        guarded.tokens.revoke("shop")
        problem_in(await client.get(TASKS, headers=bearer(token)), 401, "unauthorized")
        problem_in(await client.get(TASKS), 401, "unauthorized")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
async def test_gateway_that_others_reach_is_closed_without_any_token(guarded: Guarded, host: str) -> None:
    async with guarded.gateway(host=host) as client:
        problem_in(await client.get(TASKS), 401, "unauthorized")
        assert (await client.get("/health")).status_code == 200


async def test_operator_may_insist_as_long_as_there_is_no_token(guarded: Guarded) -> None:
    async with guarded.gateway(host="0.0.0.0", is_insecure=True) as client:
        assert (await client.get(TASKS)).status_code == 200
        guarded.token("admin")
        problem_in(await client.get(TASKS), 401, "unauthorized")


# --- other sites, on an open gateway --------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST:8000", "localhost.", "a.localhost", "127.0.0.1:8000", "127.9.9.9"),
        *("[::1]:8000", "[::1]", "::1", "192.0.2.7:80", "tasks.internal", "tasks.internal:8000", ""),
    ],
)
async def test_open_gateway_answers_to_addresses_and_names_it_knows(guarded: Guarded, host: str) -> None:
    async with guarded.gateway(allowed_hosts=["tasks.internal"]) as client:
        assert (await client.get("/health", headers={"Host": host})).status_code in {200, 400}
        assert (await client.get(TASKS, headers={"Host": host})).status_code in {200, 400}  # Litestar refuses some


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil-localhost"),
        *("localhost:8000.evil.example.:8000", "tasks.internal.evil.example", "2130706433", "gateway", "a" * 300),
    ],
)
@pytest.mark.parametrize("path", ["/health", TASKS, "/schema/openapi.json"])
async def test_open_gateway_answers_to_no_other_name(guarded: Guarded, host: str, path: str) -> None:
    async with guarded.gateway(allowed_hosts=["tasks.internal"]) as client:
        answer = await client.get(path, headers={"Host": host})
        if answer.status_code != 400:  # the framework refuses what is no name at all
            assert "AEGIS_ALLOWED_HOSTS" in problem_in(answer, 421, "wrong_host")["detail"]
        answer = await client.get(path, headers=[("Host", "localhost"), ("Host", host)])
        assert answer.status_code in {400, 421}


async def test_gateway_with_tokens_answers_to_any_name(guarded: Guarded) -> None:
    token = guarded.token("admin")
    async with guarded.gateway() as client:
        headers = {**bearer(token), "Host": "tasks.example", "Origin": "https://elsewhere.example"}
        assert (await client.get(TASKS, headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_page_of_another_site_changes_nothing(
    guarded: Guarded, redis: AegisRedis, headers: dict[str, str]
) -> None:
    async with guarded.gateway() as client:
        problem_in(await client.post(ENQUEUE, json=JOB, headers=headers), 403, "cross_site_request")
    assert await redis.dbsize() == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://localhost"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_own_page_and_programs_may(guarded: Guarded, headers: dict[str, str]) -> None:
    async with guarded.gateway() as client:
        assert (await client.post(ENQUEUE, json=JOB, headers=headers)).status_code == 202


async def test_no_other_site_is_allowed_to_ask(guarded: Guarded) -> None:
    async with guarded.gateway() as client:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        answer = await client.options(ENQUEUE, headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]


# --- limits ---------------------------------------------------------------------------------------


async def test_token_has_a_limit_of_its_own(guarded: Guarded) -> None:
    slow, fast = guarded.token("admin", rate="2/h"), guarded.token("admin", name="fast")
    async with guarded.gateway(rate_limit="4/h") as client:
        statuses = [(await client.get(TASKS, headers=bearer(slow))).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        statuses = [(await client.get(TASKS, headers=bearer(fast))).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 200, 429]
        answer = await client.get(TASKS, headers=bearer(slow))
        problem = problem_in(answer, 429, "rate_limited")
        assert problem["rate"] == "2/h"
        assert int(answer.headers["retry-after"]) >= problem["retry_after_seconds"] > 1700


async def test_open_gateway_limits_nobody_unless_told(guarded: Guarded, redis: AegisRedis) -> None:
    async with guarded.gateway() as client:
        assert (await client.get(TASKS)).status_code == 200
        assert await redis.dbsize() == 0
    async with guarded.gateway(rate_limit="1/h") as client:
        assert (await client.get(TASKS)).status_code == 200
        problem_in(await client.get(TASKS), 429, "rate_limited")
        assert (await client.get("/health")).status_code == 200


async def test_refused_caller_uses_nothing_up(guarded: Guarded, redis: AegisRedis) -> None:
    writer = guarded.token("tasks:write", rate="1/h")
    async with guarded.gateway() as client:
        problem_in(await client.get(TASKS, headers=bearer(writer)), 403, "forbidden")
        problem_in(await client.get(TASKS, headers=bearer("wrong")), 401, "unauthorized")
    assert await redis.dbsize() == 0


async def test_absent_redis_is_503_where_there_is_a_limit_and_health_is_alive(guarded: Guarded) -> None:
    token = guarded.token("admin", rate="1/h")
    async with guarded.gateway(redis_url="redis://127.0.0.1:1") as client:
        answer: httpx.Response = await client.get(TASKS, headers=bearer(token))
        problem_in(answer, 503, "store_unreachable")
        assert (await client.get("/health")).status_code == 200
