"""``docs/reference/http.md`` lists routes and problems as the gateway has them."""

import ast
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, Final

import httpx
import pytest

from bridge.catalog import Catalog
from bridge.gateway.problems import STATUSES, Problem
from bridge.settings import Settings
from tests.docs.pages import ROOT, plain, read_page
from tests.docs.routes import routes
from tests.docs.running import gateway_client

PAGE: Final = read_page(ROOT / "docs/reference/http.md")
PROBLEMS: Final = {plain(row["code"]): row for row in PAGE.table("code", "status", "when", "carries").rows}
ALWAYS_THERE: Final = {"type", "title", "status", "detail", "code", "request_id"}
OF_THE_DOCS_PAGE: Final = {("GET", "/schema-assets/{file_path}"), ("GET", "/schema/{path}")} | {
    ("GET", "/schema/oauth2-redirect.html")
}
ENQUEUE: Final = "/api/v1/tasks/enqueue"


def test_table_lists_exactly_the_routes() -> None:
    rows = PAGE.table("route", "does", "answers").rows
    told = {tuple(plain(row["route"]).split()) for row in rows}
    assert {(method, path.rstrip("/") or "/") for method, path in told} == routes() - OF_THE_DOCS_PAGE
    assert routes() >= OF_THE_DOCS_PAGE


def test_table_lists_exactly_the_problem_codes() -> None:
    assert {code: int(row["status"]) for code, row in PROBLEMS.items()} == dict(codes())


def codes() -> list[tuple[str, int]]:
    """Code and status of every problem that ``problems.py`` can make of an error of ours, of Redis or of a bug."""
    found = [(code, int(status)) for status, code in STATUSES.values()]
    for node in ast.walk(ast.parse((ROOT / "bridge/gateway/problems.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "problem":
            match node.args:
                case [ast.Attribute(attr=status_name), ast.Constant(value=str(code)), *_]:
                    found.append((code, int(HTTPStatus[status_name])))
    return found


def test_what_a_problem_carries_is_a_field_of_it() -> None:
    carried = {name for row in PROBLEMS.values() for name in plain(row["carries"]).split(", ") if name}
    assert carried == set(Problem.__struct_fields__) - ALWAYS_THERE


@pytest.fixture
async def gateway(catalog: Catalog) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway on a Redis inside this process."""
    settings = Settings(redis_url="memory://", max_body_bytes=10_000)
    async with gateway_client(settings, catalog) as client:
        yield client


REFUSED: Final[dict[str, list[dict[str, Any]]]] = {
    "invalid_request": [
        {"content": b"no json", "headers": {"Content-Type": "application/json"}},
        {"json": {"queue_type": "load_test"}},
        {"json": {"task_name": "io_simulation_task", "colour": "red"}},
    ],
    "invalid_task_name": [
        {"json": {"task_name": "no_such_task"}},
        {"json": {"task_name": "io_simulation_task", "queue_type": "system"}},
    ],
    "invalid_queue_type": [{"json": {"task_name": "io_simulation_task", "queue_type": "no_such_queue"}}],
    "invalid_arguments": [
        {"json": {"task_name": "io_simulation_task", "kwargs": {"delay": 1}}},
        {"json": {"task_name": "io_simulation_task", "kwargs": {"delay_ms": "1"}}},
    ],
    "request_too_large": [{"content": b" " * 10_001, "headers": {"Content-Type": "application/json"}}],
    "unsupported_media_type": [{"data": {"task_name": "io_simulation_task"}}],
}


@pytest.mark.parametrize(
    ("code", "request_options"), [(code, options) for code, many in REFUSED.items() for options in many]
)
async def test_refused_request_gets_the_documented_problem(
    gateway: httpx.AsyncClient, code: str, request_options: dict[str, Any]
) -> None:
    assert_is_documented(await gateway.post(ENQUEUE, **request_options), code)


async def test_taken_id_gets_the_documented_problem(gateway: httpx.AsyncClient) -> None:
    request = {"task_name": "io_simulation_task", "task_id": "taken"}
    await gateway.post(ENQUEUE, json=request)
    assert_is_documented(await gateway.post(ENQUEUE, json=request), "duplicate_job")


async def test_reused_key_gets_the_documented_problem(gateway: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "key"}
    await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task"}, headers=headers)
    answer = await gateway.post(ENQUEUE, json={"task_name": "noop_task"}, headers=headers)
    assert_is_documented(answer, "idempotency_key_reused")


@pytest.mark.parametrize("noun", ["status", "result"])
async def test_unknown_id_gets_the_documented_problem(gateway: httpx.AsyncClient, noun: str) -> None:
    assert_is_documented(await gateway.get(f"/api/v1/tasks/{noun}/unknown"), "job_not_found")


async def test_absent_redis_gets_the_documented_problem(catalog: Catalog) -> None:
    async with gateway_client(Settings(redis_url="redis://127.0.0.1:1"), catalog) as gateway:
        answer = await gateway.post(ENQUEUE, json={"task_name": "io_simulation_task"})
        assert_is_documented(answer, "store_unreachable")
        assert answer.headers["Retry-After"].isdigit()


def assert_is_documented(answer: httpx.Response, code: str) -> None:
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (problem["code"], answer.status_code) == (code, int(PROBLEMS[code]["status"]))
    assert problem["type"].endswith(code)
    assert set(problem) - ALWAYS_THERE == {name for name in plain(PROBLEMS[code]["carries"]).split(", ") if name}


async def test_what_the_framework_refuses_has_the_documented_codes(gateway: httpx.AsyncClient) -> None:
    assert (await gateway.get("/api/v1/nothing")).json()["code"] == "not_found"
    answer = await gateway.get(ENQUEUE)
    assert answer.json()["code"] == "method_not_allowed"
    assert "POST" in answer.headers["Allow"]


async def test_example_of_a_problem_is_what_the_gateway_answers(gateway: httpx.AsyncClient) -> None:
    (example,) = [block for block in PAGE.blocks if block.language == "json"]
    request = {"task_name": "io_simulation_task", "kwargs": {"delay": 1}}
    answer = await gateway.post(ENQUEUE, json=request, headers={"X-Request-ID": "checkout-7"})
    assert answer.json() == httpx.Response(200, text=example.text).json()
