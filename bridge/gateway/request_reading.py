"""What a request says in its headers and in its body, read once and checked."""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from litestar.types import Receive, Scope

from bridge.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType

__all__ = [
    "IDEMPOTENCY_KEY",
    "JSON",
    "LONGEST_KEY",
    "Headers",
    "media_type_of",
    "read_body",
    "read_headers",
    "read_idempotency_key",
    "read_strict",
    "read_trace",
]

JSON: Final = "application/json"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
LONGEST_KEY: Final = 255
QUOTED_KEY: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"')
"""A string of structured field values (RFC 9651), not empty."""
BARE_KEY: Final = re.compile(r"[!#-+\--:<-\[\]-~]+")
"""Visible characters without quotes, commas, semicolons and backslashes."""
TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}(-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-|$)")


class Headers(NamedTuple):
    """The headers that matter to a request with a body, as they were sent."""

    content_type: bytes = b""
    content_length: bytes = b""
    idempotency_key: bytes | None = None
    traceparent: bytes = b""


FIELDS: Final = {name.replace("_", "-").encode(): name for name in Headers._fields}


def read_headers(scope: Scope) -> Headers:
    """The headers of the request.

    Raises:
        InvalidRequest: it has more than one ``Idempotency-Key``.
    """
    raw = scope["headers"]
    found: dict[str, Any] = {FIELDS[name]: value for name, value in raw if name in FIELDS}
    if "idempotency_key" in found and sum(name == b"idempotency-key" for name, _ in raw) > 1:
        raise InvalidRequest(f"{IDEMPOTENCY_KEY} is sent more than once", path=IDEMPOTENCY_KEY)
    return Headers(**found)


def read_strict(query: bytes) -> bool:
    """Whether numbers and booleans written as text are refused: unless the query says ``strict=false``.

    Raises:
        InvalidRequest: it says something else of ``strict``.
    """
    given = [value for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if name == "strict"]
    if any(value not in {"true", "false"} for value in given):
        raise InvalidRequest("strict is true or false", path="strict")
    return "false" not in given


async def read_body(
    receive: Receive,
    headers: Headers,
    *,
    most_bytes: int,
    setting: str = "AEGIS_MAX_BODY_BYTES",
    media_types: Sequence[str] = (JSON,),
) -> bytes:
    """The body, if it is declared as one of the media types and is not too large.

    A browser sends such a type to another site only after asking it first, which the gateway does not
    allow: so a page elsewhere cannot enqueue tasks on a developer's machine.

    Args:
        receive: of the request.
        headers: its headers.
        most_bytes: the limit.
        setting: what raises the limit.
        media_types: those that are accepted.

    Raises:
        UnsupportedMediaType: the content type is another.
        RequestTooLarge: the body is over the limit.
        InvalidRequest: the connection ended before the body did.
    """
    if headers.content_type != b"application/json" and media_type_of(headers) not in media_types:
        wanted = " or ".join(media_types)
        raise UnsupportedMediaType(f"send Content-Type: {wanted}, not {media_type_of(headers) or 'none'}")
    length = int(headers.content_length) if headers.content_length.isdigit() else -1
    chunks: list[bytes] = []
    read_bytes = 0
    while True:
        if max(length, read_bytes) > most_bytes:
            raise RequestTooLarge(most_bytes, setting)
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the connection was closed before the whole body had come")
        chunks.append(message["body"])
        read_bytes += len(message["body"])
        # Whoever has all that was announced need not ask the server whether that was all.
        if read_bytes == length or not message.get("more_body"):
            break
    if read_bytes > most_bytes:
        raise RequestTooLarge(most_bytes, setting)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def media_type_of(headers: Headers) -> str:
    """The content type without its parameters."""
    return headers.content_type.decode("latin-1").partition(";")[0].strip().lower()


def read_idempotency_key(headers: Headers) -> str | None:
    """The key, quoted or not, which makes no difference; ``None`` without one.

    Raises:
        InvalidRequest: it is no such key.
    """
    if headers.idempotency_key is None:
        return None
    text = headers.idempotency_key.decode("latin-1").strip()
    quoted = QUOTED_KEY.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if not (quoted or BARE_KEY.fullmatch(text)) or len(key) > LONGEST_KEY:
        form = 'printable ASCII characters, "in quotes" where there are spaces, commas, semicolons or backslashes'
        raise InvalidRequest(f"{IDEMPOTENCY_KEY} must be 1 to {LONGEST_KEY} {form}", path=IDEMPOTENCY_KEY)
    return key


def read_trace(headers: Headers) -> str:
    """The caller's traceparent (W3C Trace Context), ``""`` without a valid one; that of a later version as of ours."""
    if not headers.traceparent:
        return ""
    text = headers.traceparent.decode("latin-1").strip()
    found = TRACEPARENT.match(text)
    if found is None or (text.startswith("00") and found[2]):
        return ""
    return f"00{found[1]}"
