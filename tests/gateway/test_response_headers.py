"""What every response tells browsers, and that a stream ends with its caller's token."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, get
from litestar.response import Stream

from bridge import tokens as tokens_module
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.gateway.access import needs
from bridge.gateway.authentication import Authentication
from bridge.gateway.response_headers import ResponseHeaders
from bridge.rate_limit import RateLimit
from bridge.scripts import Scripts
from bridge.tokens import KnownTokens
from tests.gateway.guarded import Guarded, bearer
from tests.gateway.problem import ENQUEUE


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/tasks/"),
        ("OPTIONS", "/api/v1/tasks/"),
        ("GET", "/health"),
        ("GET", "/nothing"),
        ("PUT", "/health"),
        ("POST", ENQUEUE),
        ("GET", "/api/v1/tasks/status/unknown"),
        ("GET", "/"),
    ],
)
async def test_every_answer_for_programs_is_to_be_neither_shown_nor_kept(
    gateway: httpx.AsyncClient, method: str, path: str
) -> None:
    headers = (await gateway.request(method, path)).headers
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert_common(headers)


def assert_common(headers: httpx.Headers) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/schema", "/schema/swagger", "/schema-assets/docs_page.js", "/schema/nothing"])
async def test_docs_page_may_load_its_own_files_and_nothing_else(gateway: httpx.AsyncClient, path: str) -> None:
    headers = (await gateway.get(path)).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert_common(headers)


async def test_docs_page_has_no_script_or_style_of_its_own(gateway: httpx.AsyncClient) -> None:
    page = (await gateway.get("/schema")).text
    assert page.count("<script ") == page.count("<script src=") == page.count("></script>") == 3
    assert "<style" not in page
    assert " style=" not in page
    assert " on" not in page.replace(" one", "")


async def test_stream_ends_when_its_callers_token_is_revoked(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "LOOK_AGAIN_S", 0)
    guarded = Guarded(tmp_path, catalog)
    token = guarded.token("events:read")
    sent: list[int] = []

    async def numbers() -> AsyncIterator[bytes]:
        for number in range(100):
            if number == 3:
                guarded.tokens.revoke("shop")
            sent.append(number)
            yield b"%d " % number

    @get("/numbers", opt=needs("events:read"))
    async def stream() -> Stream:
        return Stream(numbers())

    authentication = Authentication(
        guarded.settings, KnownTokens(guarded.tokens), RateLimit(Scripts(AegisRedis(), events_max_len=1))
    )
    inner = Litestar([stream], middleware=[authentication.layer], openapi_config=None)
    inner.asgi_handler = ResponseHeaders(inner.asgi_handler, still_admits=authentication.still_admits)
    app: Any = inner
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        with pytest.raises(Exception, match="response started"):  # a server cuts the connection
            await client.get("/numbers", headers=bearer(token))
    assert sent == [0, 1, 2, 3]
