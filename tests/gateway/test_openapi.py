"""The OpenAPI document and the page that shows it."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bridge.broker import open_redis
from bridge.catalog import Catalog
from bridge.gateway.app import create_app
from bridge.settings import Settings
from tests.gateway.problem import ENQUEUE


@pytest.fixture
async def document(gateway: httpx.AsyncClient) -> dict[str, Any]:
    answer = await gateway.get("/schema/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def values(node: Any) -> Iterator[tuple[str, Any]]:
    """Every key of the document with its value, however deep."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield name, value
            yield from values(value)
    elif isinstance(node, list):
        for value in node:
            yield from values(value)


def resolve(document: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/")
    found: Any = document
    for part in reference[2:].split("/"):
        assert part in found, f"{reference} leads nowhere"
        found = found[part]
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path.rstrip("/")): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


async def test_document_lists_the_routes(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "aegis-tasks"
    assert operations(document).keys() == {
        ("GET", "/api/v1/tasks"),
        ("POST", "/api/v1/tasks/enqueue"),
        ("POST", "/api/v1/tasks/enqueue/batch"),
        ("GET", "/api/v1/tasks/status/{task_id}"),
        ("GET", "/api/v1/tasks/result/{task_id}"),
        ("GET", "/api/v1/events"),
        ("GET", "/api/v1/events/stream"),
        ("POST", "/api/v1/tasks/{task_id}/abort"),
        ("POST", "/api/v1/tasks/{task_id}/retry"),
        ("GET", "/api/v1/tasks/{task_id}/events"),
        ("GET", "/api/v1/queues"),
        ("GET", "/api/v1/queues/{queue}"),
        ("GET", "/api/v1/queues/{queue}/jobs"),
        ("POST", "/api/v1/queues/{queue}/pause"),
        ("POST", "/api/v1/queues/{queue}/resume"),
        ("GET", "/api/v1/queues/{queue}/dead"),
        ("POST", "/api/v1/queues/{queue}/dead/retry"),
        ("POST", "/api/v1/queues/{queue}/dead/purge"),
        ("GET", "/api/v1/dead"),
        ("GET", "/api/v1/workers"),
        ("GET", "/metrics"),
        *(("GET", f"{prefix}/health{rest}") for prefix in ("", "/api/v1") for rest in ("", "/ready", "/detailed")),
    }


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [value for name, value in values(document) if name == "$ref"]
    assert references
    for reference in references:
        assert isinstance(resolve(document, reference), dict)


async def test_operations_have_what_openapi_requires(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        assert operation["summary"], f"{method} {path}"
        assert operation["responses"], f"{method} {path}"
        for status, response in operation["responses"].items():
            assert re.fullmatch("[2-5][0-9]{2}", status)
            assert response["description"]
        named = set(re.findall(r"\{(\w+)\}", path))
        assert {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"} == named
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(ids) == len(set(ids))


async def test_body_of_an_enqueue_is_a_task_request(document: dict[str, Any]) -> None:
    body = operations(document)["POST", ENQUEUE]["requestBody"]

    assert body["required"] is True
    content = body["content"]["application/json"]
    schema = content["schema"]
    if "$ref" in schema:
        schema = resolve(document, schema["$ref"])
    assert schema["title"] == "TaskRequest"
    assert schema["required"] == ["task_name"]
    assert schema["additionalProperties"] is False
    assert schema["properties"].keys() == {
        "task_name",
        "queue_type",
        "args",
        "kwargs",
        "delay_seconds",
        "run_at",
        "expires_seconds",
        "task_id",
        "timeout_seconds",
        "max_tries",
    }


async def test_every_task_has_a_schema_of_its_own(document: dict[str, Any]) -> None:
    content = operations(document)["POST", ENQUEUE]["requestBody"]["content"]["application/json"]
    choices = {
        choice["$ref"].rpartition("/")[2]: resolve(document, choice["$ref"]) for choice in content["schema"]["oneOf"]
    }
    assert list(choices)[-1] == "TaskRequest.by_position"
    io = choices["load_test.io_simulation_task"]
    assert io["title"] == "io_simulation_task request"
    assert io["properties"]["task_name"] == {"const": "io_simulation_task"}
    assert io["properties"]["kwargs"]["properties"]["delay_ms"]["maximum"] == 60_000
    assert io["properties"]["kwargs"]["properties"]["delay_ms"]["description"].startswith("wait of one operation")
    assert io["required"] == ["task_name"]
    label = choices["mail.print_label"]
    assert label["required"] == ["task_name", "kwargs"]
    address = resolve(document, label["properties"]["kwargs"]["properties"]["address"]["$ref"])
    assert address["required"] == ["street", "zip_code"]
    assert all(re.fullmatch("[A-Za-z0-9._-]+", name) for name in document["components"]["schemas"])


async def test_every_task_has_an_example_that_is_accepted(
    gateway: httpx.AsyncClient, document: dict[str, Any], catalog: Catalog
) -> None:
    examples = operations(document)["POST", ENQUEUE]["requestBody"]["content"]["application/json"]["examples"]
    assert sorted(examples) == catalog.task_names()
    for name, example in examples.items():
        assert example["summary"]
        answer = await gateway.post(ENQUEUE, json=example["value"])
        assert answer.status_code == 202, (name, answer.text)


@pytest.mark.parametrize("task", ["io_simulation_task", "print_label"])
async def test_example_is_of_one_schema_alone(document: dict[str, Any], task: str) -> None:
    content = operations(document)["POST", ENQUEUE]["requestBody"]["content"]["application/json"]
    value = content["examples"][task]["value"]
    fitting = [
        choice["$ref"]
        for choice in content["schema"]["oneOf"]
        if value["task_name"] == resolve(document, choice["$ref"])["properties"]["task_name"].get("const")
    ]
    assert len(fitting) == 1


async def test_headers_of_an_enqueue_are_documented(document: dict[str, Any]) -> None:
    operation = operations(document)["POST", ENQUEUE]
    asked = {one["name"]: one for one in operation["parameters"]}
    assert asked.keys() == {"Idempotency-Key", "traceparent", "strict"}
    assert {one["in"] for one in asked.values() if one["name"] != "strict"} == {"header"}
    assert not any(one["required"] for one in asked.values())
    assert operation["responses"]["202"]["headers"].keys() == {"Location", "Idempotency-Replayed"}
    schema = operation["responses"]["202"]["content"]["application/json"]["schema"]
    assert resolve(document, schema["$ref"])["title"] == "Enqueued"


async def test_batch_takes_an_array_or_lines(gateway: httpx.AsyncClient, document: dict[str, Any]) -> None:
    content = operations(document)["POST", f"{ENQUEUE}/batch"]["requestBody"]["content"]
    assert content.keys() == {"application/json", "application/x-ndjson", "application/jsonl"}
    assert content["application/json"]["schema"]["items"]["anyOf"][0]["title"] == "TaskRequest"
    answer = await gateway.post(f"{ENQUEUE}/batch", json=content["application/json"]["example"])
    assert answer.json()["enqueued"] == 1


async def test_parameters_of_events_are_documented(document: dict[str, Any]) -> None:
    for path, own in (("/api/v1/events", {"limit", "wait", "latest"}), ("/api/v1/events/stream", {"Last-Event-ID"})):
        named = {parameter["name"] for parameter in operations(document)["GET", path]["parameters"]}
        assert named == own | {"after", "kind", "queue", "task", "task_id"}
    content = operations(document)["GET", "/api/v1/events/stream"]["responses"]["200"]["content"]
    assert content.keys() == {"text/event-stream"}


async def test_errors_are_documented_as_problems(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        if "/health" in path:
            continue  # it has answers of its own
        for status, response in operation["responses"].items():
            if status >= "400":
                assert response["content"].keys() == {"application/problem+json"}, f"{method} {path} {status}"
                reference = response["content"]["application/problem+json"]["schema"]["$ref"]
                assert {"type", "title", "status", "detail", "code"} <= set(resolve(document, reference)["required"])


@pytest.mark.parametrize(
    ("route", "statuses"),
    [
        (("POST", "/api/v1/tasks/enqueue"), {"202", "400", "409", "413", "415", "422", "503"}),
        (("POST", "/api/v1/tasks/enqueue/batch"), {"202", "400", "413", "415", "503"}),
        (("GET", "/api/v1/tasks/status/{task_id}"), {"200", "404", "502", "503"}),
        (("GET", "/api/v1/tasks/result/{task_id}"), {"200", "202", "400", "404", "502", "503"}),
        (("POST", "/api/v1/tasks/{task_id}/abort"), {"200", "400", "404", "413", "415", "503"}),
        (("POST", "/api/v1/tasks/{task_id}/retry"), {"200", "404", "409", "502", "503"}),
        (("GET", "/api/v1/queues/{queue}/jobs"), {"200", "400", "404", "503"}),
        (("POST", "/api/v1/queues/{queue}/pause"), {"200", "404", "503"}),
        (("POST", "/api/v1/queues/{queue}/dead/retry"), {"200", "400", "404", "413", "415", "503"}),
        (("GET", "/api/v1/events"), {"200", "400", "503"}),
        (("GET", "/api/v1/events/stream"), {"200", "400", "503"}),
    ],
)
async def test_every_status_is_documented(document: dict[str, Any], route: tuple[str, str], statuses: set[str]) -> None:
    assert operations(document)[route]["responses"].keys() >= statuses


async def test_root_leads_to_the_docs_page(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.get("/", follow_redirects=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "swagger-ui-bundle.js" in answer.text


async def test_docs_page_loads_everything_from_the_gateway(gateway: httpx.AsyncClient) -> None:
    page = (await gateway.get("/", follow_redirects=True)).text

    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']""", page)
    assert len(loaded) >= 3
    for address in loaded:
        assert address.startswith("/"), address
        assert not address.startswith("//"), address
        asset = await gateway.get(address)
        assert asset.status_code == 200, address
        assert asset.content
    styles = await gateway.get(next(address for address in loaded if address.endswith(".css")))
    assert not re.search(rb"url\(['\"]?(https?:)?//", styles.content)


async def test_docs_page_calls_its_document_what_its_version_of_swagger_ui_can_show(
    gateway: httpx.AsyncClient,
) -> None:
    """Swagger UI before 5 shows nothing but an error for OpenAPI 3.1."""
    own = (await gateway.get("/schema-assets/docs_page.js")).text
    script = (await gateway.get("/schema-assets/swagger-ui-bundle.js")).text
    declared = re.search(r'openapi:\s*"([0-9.]+)"', own)
    assert declared
    assert "OAS 3.1" in script or "isOAS31" in script or declared[1].startswith("3.0.")


@pytest.mark.parametrize("path", ["../swagger_ui_bundle/__init__.py", "%2e%2e/%2e%2e/__init__.py", "nothing.js"])
async def test_assets_outside_their_folder_are_not_served(gateway: httpx.AsyncClient, path: str) -> None:
    assert (await gateway.get(f"/schema-assets/{path}")).status_code == 404


async def test_application_leaves_logging_to_the_entry_points(settings: Settings, catalog: Catalog) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    redis = open_redis(settings)
    create_app(settings, catalog, redis)
    assert (root.level, list(root.handlers)) == before
    await redis.aclose(close_connection_pool=True)
