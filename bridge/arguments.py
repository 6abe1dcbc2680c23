"""A task's signature as a msgspec type: it checks arguments, converts them and describes them."""

import difflib
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from bridge.errors import ConfigurationError, InvalidArguments

__all__ = ["Signature"]

Parameter = inspect.Parameter
ARGUMENT = re.compile(r"^    \*{0,2}(?P<name>\w+)(?: \([^)]*\))?: (?P<text>.*)")
PATH = re.compile(r"^(?P<message>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)


class Signature:
    """What a task function accepts after its first parameter, which is arq's ``ctx``.

    Args:
        function: the task; wrappers made with `functools.wraps` are looked through.
        task_name: how errors call it.

    Raises:
        ConfigurationError: it takes no ``ctx``, or a parameter's type cannot be read from JSON.
    """

    def __init__(self, function: Callable[..., Any], *, task_name: str) -> None:
        self.task_name = task_name
        parameters = list(inspect.signature(inspect.unwrap(function)).parameters.values())
        if not parameters or parameters[0].kind not in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}:
            raise ConfigurationError(f"task {task_name}: its first parameter must be arq's ctx")
        types = self._annotations(function)
        named = [p for p in parameters[1:] if p.kind not in {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}]
        self.names = [p.name for p in named]
        self.required = {p.name for p in named if p.default is Parameter.empty}
        self.positional = [p.name for p in named if p.kind is not Parameter.KEYWORD_ONLY]
        self.positional_only = {p.name for p in named if p.kind is Parameter.POSITIONAL_ONLY}
        self.takes_more_args = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
        self.takes_more_kwargs = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
        self.is_plain = not (self.takes_more_args or self.takes_more_kwargs or self.positional_only)
        for p in named:
            self._check_type(p.name, types.get(p.name, Any))
        self.struct = msgspec.defstruct(
            f"{task_name} arguments",
            [field(p, types.get(p.name, Any)) for p in named],
            kw_only=True,
            forbid_unknown_fields=self.is_plain,
        )
        self.descriptions = described_arguments(inspect.getdoc(inspect.unwrap(function)) or "")
        self.json_schema = self._json_schema()

    def _annotations(self, function: Callable[..., Any]) -> dict[str, Any]:
        try:
            return typing.get_type_hints(inspect.unwrap(function), include_extras=True)
        except NameError as error:
            raise ConfigurationError(f"task {self.task_name}: an annotation cannot be resolved: {error}") from None

    def _check_type(self, name: str, annotation: Any) -> None:
        try:
            msgspec.json.schema(annotation)
        except TypeError:
            raise ConfigurationError(
                f"task {self.task_name}: a parameter's type cannot be read from JSON: {name}: {annotation}; "
                "use builtins, datetimes, UUIDs, enums, dataclasses, TypedDicts or msgspec Structs"
            ) from None

    def _json_schema(self) -> dict[str, Any]:
        (schema,), components = msgspec.json.schema_components([self.struct], ref_template="#/$defs/{name}")
        own = dict(components.pop(schema["$ref"].rpartition("/")[2]))
        own["additionalProperties"] = self.takes_more_kwargs
        own["properties"] = {
            name: {"description": self.descriptions[name], **schema} if name in self.descriptions else schema
            for name, schema in own["properties"].items()
        }
        return {**own, "$defs": components} if components else own

    def convert(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, strict: bool = True
    ) -> tuple[list[Any], dict[str, Any]]:
        """The same arguments with each value as its annotated type; what was left out stays out.

        Args:
            args: positional arguments as JSON gave them.
            kwargs: keyword arguments as JSON gave them.
            strict: false also takes numbers and booleans written as strings, as a command line has them.

        Raises:
            InvalidArguments: the signature does not accept them; ``path`` names the first that is wrong.
        """
        given = dict(zip(self.positional, args, strict=False))
        merged = {**given, **kwargs} if given else kwargs
        if strict and self.is_plain and len(merged) == len(args) + len(kwargs):
            try:
                converted = msgspec.structs.asdict(msgspec.convert(merged, self.struct))
                return [converted[name] for name in given], {name: converted[name] for name in kwargs}
            except msgspec.ValidationError:
                pass  # mostly what is wrong; or a dict whose keys are not text, which takes the longer way
        self._check_names(args, kwargs, given)
        try:
            converted = msgspec.structs.asdict(msgspec.convert(merged, self.struct, strict=strict, str_keys=True))
        except msgspec.ValidationError as error:
            raise self._refused(str(error), given) from None
        return (
            [converted[name] for name in given] + list(args[len(given) :]),
            {name: converted.get(name, value) for name, value in kwargs.items()},
        )

    def _check_names(self, args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        if len(args) > len(given) and not self.takes_more_args:
            raise self._invalid(f"at most {len(self.positional)} positional arguments", f"$.args[{len(given)}]")
        for name in kwargs:
            if name in given:
                raise self._invalid(f"argument {name!r} is given twice", f"$.kwargs.{name}")
            if name in self.positional_only:
                raise self._invalid(f"argument {name!r} is taken by position only", f"$.kwargs.{name}")
            if name not in self.names and not self.takes_more_kwargs:
                near = difflib.get_close_matches(name, self.names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(self.names) or 'none'}"
                raise self._invalid(f"there is no argument {name!r}; {hint}", f"$.kwargs.{name}")
        missing = [name for name in self.names if name in self.required and name not in given and name not in kwargs]
        if missing:
            raise self._invalid(f"argument {missing[0]!r} is missing", f"$.kwargs.{missing[0]}")

    def _refused(self, text: str, given: Mapping[str, Any]) -> InvalidArguments:
        """Turns msgspec's ``… - at `$.name…``` into the place in the request: ``$.kwargs.name…`` or ``$.args[0]…``."""
        match = PATH.match(text)
        message, path = (match["message"], match["path"] or "") if match else (text, "")
        name = re.split(r"[.\[]", path.removeprefix("."), maxsplit=1)[0]
        if name in given:
            place = f"$.args[{self.positional.index(name)}]{path.removeprefix(f'.{name}')}"
        else:
            place = f"$.kwargs{path}"
        return self._invalid(message[:1].lower() + message[1:], place)

    def _invalid(self, message: str, path: str) -> InvalidArguments:
        return InvalidArguments(f"{self.task_name}: {message} - at {path}", task_name=self.task_name, path=path)


def described_arguments(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument, where it has a section ``Args:`` in Google's style."""
    described: dict[str, str] = {}
    _, _, section = docstring.partition("\nArgs:\n")
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if found := ARGUMENT.match(line):
            name = found["name"]
            described[name] = found["text"]
        elif name and line.strip():
            described[name] += f" {line.strip()}"
    return described


def field(parameter: Parameter, annotation: Any) -> Any:
    """A struct field that may be left out where the parameter has a default."""
    if parameter.default is Parameter.empty:
        return (parameter.name, annotation)
    if isinstance(parameter.default, (list, dict, set, bytearray)):
        default = parameter.default
        return (parameter.name, annotation, msgspec.field(default_factory=lambda: default))
    return (parameter.name, annotation, parameter.default)
