"""Requests that no HTTP library would send: bytes that are no text, no numbers, no names, in every place."""

import socket
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
from hypothesis import strategies as st

__all__ = ["addresses", "assert_is_no_fault", "raw_requests", "said"]

HEADERS: Final = [
    b"Accept",
    b"Authorization",
    b"Connection",
    b"Content-Encoding",
    b"Content-Length",
    b"Content-Type",
    b"Cookie",
    b"Expect",
    b"Host",
    b"Idempotency-Key",
    b"Last-Event-ID",
    b"Origin",
    b"Range",
    b"Sec-Fetch-Site",
    b"Traceparent",
    b"Transfer-Encoding",
    b"X-Forwarded-For",
    b"X-Http-Method-Override",
    b"X-Request-Id",
]
QUERY: Final = [b"after", b"cursor", b"kind", b"limit", b"queue", b"state", b"task", b"task_id", b"wait"]

garbage = st.binary(max_size=30) | st.sampled_from(
    [
        *(b"%", b"%zz", b"%00", b"%0d%0aX: y", b"%ff%fe", b"%ed%a0%80", b"..%2f..", b"\0", b"\r", b"\n", b"\r\n\r\n"),
        *(b"", b" ", b"\t", b"\xff", "é".encode(), b"-1", b"1e999", b"NaN", b"9" * 5000, b"1_000", b"\xd9\xa3", b"0x1"),
        *(b"*", b"$", b"0-0", b"18446744073709551616-0", b"2026-02-30T00:00:00Z", b"null", b"[]", b"{", b"a" * 3000),
    ]
)
values = garbage | st.sampled_from(
    [b"application/json", b"application/x-ndjson", b"chunked", b"gzip", b"100-continue", b"close", b"localhost", b"5"]
)


def addresses(url: str) -> list[str]:
    """Every address of the OpenAPI document, and some others."""
    return [*httpx.get(f"{url}/schema/openapi.json").json()["paths"], "/", "/schema", "/schema-assets/{file}", "*", ""]


@st.composite
def raw_requests(draw: Any, paths: list[str], authorization: bytes) -> bytes:
    """A request for one of these addresses; with the authorization, mostly."""
    method = draw(st.sampled_from([b"GET", b"POST", b"POST", b"HEAD", b"PUT", b"OPTIONS"]) | garbage)
    target = draw(st.sampled_from(paths)).encode()
    while b"{" in target:
        before, _, rest = target.partition(b"{")
        value = draw(garbage)
        value = draw(st.sampled_from([value, quote(value, safe="").encode()]))
        target = before + value + rest.partition(b"}")[2]
    for mark, name in zip(b"?&&&", draw(st.lists(st.sampled_from(QUERY) | garbage, max_size=4)), strict=False):
        target += bytes([mark]) + name + b"=" + draw(garbage)
    lines = [method + b" " + target + b" " + draw(st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/9", b""]))]
    if draw(st.integers(0, 9)):
        lines += [b"Host: localhost", b"Connection: close"]
    if draw(st.integers(0, 3)):
        lines.append(b"Authorization: " + authorization)
    body = draw(
        st.sampled_from([b"", b"{}", b"[]", b"[{}]", b'{"task_name": "noop_task"}', b'{"all": true}']) | garbage
    )
    if draw(st.integers(0, 3)):
        lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    lines += [name + b": " + draw(values) for name in draw(st.lists(st.sampled_from(HEADERS) | garbage, max_size=4))]
    request: bytes = b"\r\n".join(lines) + b"\r\n\r\n" + body
    return request


def said(port: int, request: bytes) -> bytes:
    """What the server answers to these very bytes, up to the end of a short body; a request that is cut off is none."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, suppress(OSError):
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65_536):
            answer += part
            if answer.count(b"\r\n\r\n") and len(answer) > 4096:
                break
    return answer


def assert_is_no_fault(answer: bytes) -> None:
    """It blames the caller, if anybody; in a problem document, if it is the application's."""
    if not answer:
        return  # what is not HTTP is refused without a word
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    assert status < 500, answer[:2000]
    if status >= 400 and b"application/problem+json" in head and body:
        with suppress(msgspec.DecodeError):  # several answers in one, or one without its end
            assert msgspec.json.decode(body)["status"] == status
    assert b"Traceback" not in answer
