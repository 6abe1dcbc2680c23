from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from bridge.arguments import Signature
from bridge.errors import ConfigurationError, InvalidArguments

Context = dict[str, Any]


@dataclass
class Address:
    city: str


async def send_mail(
    ctx: Context,
    user_id: int,
    subject: str = "hello",
    *,
    at: datetime | None = None,
    tags: list[int] = [1, 2],  # noqa: B006
    level: Literal["low", "high"] = "low",
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5,
    to: Address | None = None,
) -> None: ...


@pytest.fixture
def signature() -> Signature:
    return Signature(send_mail, task_name="send_mail")


def test_arguments_come_back_as_their_annotated_types(signature: Signature) -> None:
    args, kwargs = signature.convert([7], {"at": "2026-01-31T12:00:00Z", "to": {"city": "Ulm"}})
    assert args == [7]
    assert kwargs["at"] == datetime.fromisoformat("2026-01-31T12:00:00Z")
    assert kwargs["to"] == Address("Ulm")


def test_arguments_left_out_stay_out(signature: Signature) -> None:
    assert signature.convert([], {"user_id": 1}) == ([], {"user_id": 1})


@pytest.mark.parametrize(
    ("args", "kwargs", "path", "message"),
    [
        ([], {}, "$.kwargs.user_id", "missing"),
        (["x"], {}, "$.args[0]", "expected `int`, got `str`"),
        ([1, 2], {}, "$.args[1]", "expected `str`"),
        ([1, "a", 3], {}, "$.args[2]", "at most 2"),
        ([1], {"user_id": 2}, "$.kwargs.user_id", "twice"),
        ([1], {"subjct": "x"}, "$.kwargs.subjct", "did you mean 'subject'?"),
        ([1], {"zzz": "x"}, "$.kwargs.zzz", "it takes user_id, subject"),
        ([1], {"tags": [1, "b"]}, "$.kwargs.tags[1]", "expected `int`"),
        ([1], {"level": "middle"}, "$.kwargs.level", "invalid enum value"),
        ([1], {"share": 2}, "$.kwargs.share", "<= 1"),
        ([1], {"to": {}}, "$.kwargs.to", "city"),
        ([1], {"at": "tomorrow"}, "$.kwargs.at", "datetime"),
        ([True], {}, "$.args[0]", "expected `int`"),
        ([None], {}, "$.args[0]", "expected `int`"),
    ],
)
def test_wrong_argument_is_named(
    signature: Signature, args: list[Any], kwargs: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        signature.convert(args, kwargs)
    assert caught.value.path == path
    assert message in str(caught.value)
    assert path in str(caught.value)


def test_text_is_converted_only_when_not_strict(signature: Signature) -> None:
    assert signature.convert([], {"user_id": "7", "share": "0.25"}, strict=False) == ([], {"user_id": 7, "share": 0.25})
    with pytest.raises(InvalidArguments):
        signature.convert([], {"user_id": "7"})


def test_default_that_is_a_list_is_not_shared(signature: Signature) -> None:
    assert signature.convert([1], {"tags": []})[1] == {"tags": []}


def test_schema_describes_every_argument(signature: Signature) -> None:
    schema = signature.json_schema
    assert schema["required"] == ["user_id"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["user_id"] == {"type": "integer"}
    assert schema["properties"]["share"]["maximum"] == 1
    assert schema["properties"]["subject"]["default"] == "hello"
    assert schema["$defs"]["Address"]["required"] == ["city"]
    msgspec.json.encode(schema)


def test_open_signature_takes_anything_more() -> None:
    async def task(ctx: Context, first: int, *rest: str, **more: Any) -> None: ...

    signature = Signature(task, task_name="task")
    assert signature.convert([1, "a", 5], {"x": {"y": 1}}) == ([1, "a", 5], {"x": {"y": 1}})


def test_parameter_without_annotation_takes_anything() -> None:
    async def task(ctx, thing):  # type: ignore[no-untyped-def]
        ...

    assert Signature(task, task_name="task").convert([], {"thing": [1, None]}) == ([], {"thing": [1, None]})


def test_positional_only_parameter_is_refused_by_name() -> None:
    async def task(ctx: Context, first: int = 1, /) -> None: ...

    with pytest.raises(InvalidArguments, match="by position only"):
        Signature(task, task_name="task").convert([], {"first": 1})


def test_type_that_json_cannot_give_is_refused_at_once() -> None:
    class Session: ...

    async def task(ctx: Context, session: Session) -> None: ...

    with pytest.raises(ConfigurationError, match="task task: a parameter's type cannot be read from JSON"):
        Signature(task, task_name="task")


def test_annotation_that_does_not_exist_is_refused_at_once() -> None:
    async def task(ctx: Context, thing: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match="Nowhere"):
        Signature(task, task_name="task")


def test_function_without_ctx_is_refused() -> None:
    async def task() -> None: ...

    with pytest.raises(ConfigurationError, match="first parameter must be arq's ctx"):
        Signature(task, task_name="task")


def test_schema_tells_what_the_docstring_says_of_an_argument() -> None:
    async def send(ctx: dict[str, Any], to: str, *rest: str, size: int = 1, silent: bool = False) -> None:
        """Sends.

        Args:
            ctx: arq's job context.
            to (str): an address,
                with a domain: no list.
            *rest: more of them.
            size: 1 to 3.

        Raises:
            silent: is none of them.
        """

    properties = Signature(send, task_name="send").json_schema["properties"]
    assert {name: schema.get("description") for name, schema in properties.items()} == {
        "to": "an address, with a domain: no list.",
        "size": "1 to 3.",
        "silent": None,
    }
