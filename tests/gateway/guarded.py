"""A gateway that asks for tokens, or may not, inside a test."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from bridge.broker import open_redis
from bridge.catalog import Catalog
from bridge.gateway.app import create_app
from bridge.settings import Settings
from bridge.tokens import Tokens, tokens_path

__all__ = ["Guarded", "bearer"]


def bearer(token: str) -> dict[str, str]:
    """The headers of a request with this token."""
    return {"Authorization": f"Bearer {token}"}


class Guarded:
    """Gateways on the memory of this process, with tokens in a folder of the test's own."""

    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self.catalog = catalog
        self.folder = folder
        self.settings = Settings(redis_url="memory://", data_dir=folder)
        self.tokens = Tokens(tokens_path(self.settings))

    def token(self, *scopes: str, name: str = "shop", rate: str | None = None) -> str:
        """A new token."""
        return self.tokens.create(name, scopes, rate=rate)[0]

    @asynccontextmanager
    async def gateway(
        self,
        *,
        host: str = "127.0.0.1",
        base_url: str = "http://localhost",
        is_insecure: bool = False,
        allowed_hosts: Sequence[str] = (),
        rate_limit: str = "",
        redis_url: str = "memory://",
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A client of a gateway that listens there."""
        settings = Settings(
            redis_url=redis_url,
            data_dir=self.folder,
            host=host,
            allowed_hosts=tuple(allowed_hosts),
            rate_limit=rate_limit,
        )
        redis = open_redis(settings)
        app: Any = create_app(settings, self.catalog, redis, is_insecure=is_insecure)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url) as client:
            yield client
        await redis.aclose(close_connection_pool=True)
