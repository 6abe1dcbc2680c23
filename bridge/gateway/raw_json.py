"""What OpenAPI is told of JSON that is handed on as it is."""

from typing import Any

import msgspec
from litestar.openapi.spec import Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.plugins import OpenAPISchemaPlugin

__all__ = ["RawJson"]


class RawJson(OpenAPISchemaPlugin):
    """``msgspec.Raw`` is an object: the data of an event."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        """Whether the type is that."""
        return value is msgspec.Raw

    def to_openapi_schema(self, field_definition: Any, schema_creator: Any) -> Schema:
        """An object of any shape."""
        return Schema(type=OpenAPIType.OBJECT)
