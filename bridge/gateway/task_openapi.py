"""The OpenAPI document with a schema and an example for each task."""

import re
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin

from bridge.catalog import Catalog, Task
from bridge.gateway.task_examples import example_arguments

__all__ = ["TaskDocument"]

ENQUEUE_PATH: Final = "/api/v1/tasks/enqueue"
COMPONENTS: Final = "#/components/schemas/"
NOT_OF_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
BY_POSITION: Final = "TaskRequest.by_position"


class TaskDocument(JsonRenderPlugin):
    """Serves the document as JSON; it is made at the first request for it."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.catalog = catalog
        self.document = b""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document."""
        if not self.document:
            plain: dict[str, Any] = msgspec.json.decode(super().render(request, openapi_schema))
            add_tasks(plain, self.catalog)
            self.document = msgspec.json.encode(plain)
        return self.document


def add_tasks(document: dict[str, Any], catalog: Catalog) -> None:
    """The body of an enqueue is one of the requests of the tasks, or one with arguments by position."""
    components = document["components"]["schemas"]
    body = document["paths"][ENQUEUE_PATH]["post"]["requestBody"]["content"]["application/json"]
    general = body["schema"]
    tasks = [task for queue in catalog.queues.values() for task in queue.tasks.values()]
    choices, examples = [], {}
    for task in tasks:
        name = NOT_OF_A_NAME.sub("_", f"{task.queue}.{task.name}")
        is_alone = sum(other.name == task.name for other in tasks) == 1
        arguments, parts = of_component(task.signature.json_schema, name)
        components |= {name: request_schema(task, arguments, general, is_alone=is_alone)} | parts
        choices.append({"$ref": COMPONENTS + name})
        if (kwargs := example_arguments(task)) is not None:
            value = {"task_name": task.name, "queue_type": task.queue, "kwargs": kwargs}
            examples[task.name if is_alone else name] = {"summary": task.summary or task.name, "value": value}
    components[BY_POSITION] = {
        **general,
        "title": "A task with arguments by position",
        "properties": {**general["properties"], "args": {"type": "array", "minItems": 1}},
        "required": ["task_name", "args"],
    }
    body["schema"] = {**general, "oneOf": [*choices, {"$ref": COMPONENTS + BY_POSITION}]}
    body.pop("example", None)
    body["examples"] = examples


def request_schema(task: Task, arguments: dict[str, Any], general: dict[str, Any], *, is_alone: bool) -> dict[str, Any]:
    """The schema of a request for this task, with its arguments by name."""
    required = ["task_name"]
    if not is_alone:
        required.append("queue_type")
    if arguments.get("required"):
        required.append("kwargs")
    return {
        **general,
        "title": f"{task.name} request",
        "description": task.summary or task.name,
        "properties": {
            **general["properties"],
            "task_name": {"const": task.name},
            "queue_type": {"enum": [task.queue, None] if is_alone else [task.queue]},
            "args": {"type": "array", "maxItems": 0},
            "kwargs": arguments,
        },
        "required": required,
    }


def of_component(schema: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema without its ``$defs``, and those as components of the document."""

    def moved(node: Any) -> Any:
        match node:
            case {"$ref": str(reference)} if reference.startswith("#/$defs/"):
                return {**node, "$ref": COMPONENTS + part_name(reference.removeprefix("#/$defs/"))}
            case dict():
                return {key: moved(value) for key, value in node.items()}
            case list():
                return [moved(value) for value in node]
            case _:
                return node

    def part_name(part: str) -> str:
        return NOT_OF_A_NAME.sub("_", f"{name}.{part}")

    parts = {part_name(part): moved(definition) for part, definition in schema.get("$defs", {}).items()}
    return moved({key: value for key, value in schema.items() if key != "$defs"}), parts
