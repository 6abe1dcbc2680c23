"""Where Redis is, and connections to it: one client type for everything."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from arq.connections import RedisSettings
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bridge.aegis_redis import AegisRedis
from bridge.codec import job_deserializer, job_deserializer_accepting_pickle, job_serializer
from bridge.embedded_valkey import ensure_running
from bridge.errors import ConfigurationError, StoreUnreachable
from bridge.fast_connection import FastBlockingPool, FastPool, fast
from bridge.settings import Settings

__all__ = [
    "STORE_AWAY",
    "arq_redis_settings",
    "connect",
    "is_away",
    "is_embedded",
    "is_in_memory",
    "open_at",
    "open_redis",
    "safe_address",
    "same_place",
]

STORE_AWAY: Final = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError, ConnectionRefusedError)
"""What a command raises when Redis is away for now: down, loading, failing over, or out of memory."""

AWAY_REPLIES: Final = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "LOADING", "READONLY", "OOM")
"""First words of error replies that mean the same; redis-py has no class for all of them."""

ADDRESS: Final = re.compile(r"([a-z]+://)(?:[^/?#]*@)?([^@/?#]*(?:/[^@?#]*)?)(?:\?[^@#]*)?")
SENTINEL_PORT: Final = 26379
UNREADABLE: Final = (
    "REDIS_URL cannot be read: the port must be a number, options must be those of redis-py, and in a password "
    "/, ?, #, @ and % must be percent-encoded"
)
CONNECT_TIMEOUT_S: Final = 2
SOCKET_TIMEOUT_S: Final = 3
"""Longest silence on a connection; blocking reads ask for less."""

MAX_CONNECTIONS: Final = 100
"""Of one client; further commands wait for a free one."""

FROM_URL: Final = {"path": "unix_socket_path", "db": "database"}
"""Names of redis-py's URL parser that arq calls otherwise."""


def is_away(error: BaseException) -> bool:
    """Whether a command failed because Redis is away for now, so that it may succeed in a moment."""
    return isinstance(error, STORE_AWAY) or (
        isinstance(error, ResponseError) and str(error).partition(" ")[0] in AWAY_REPLIES
    )


def is_embedded(settings: Settings) -> bool:
    """Whether Redis is the Valkey server of the data folder."""
    return not settings.redis_url


def is_in_memory(settings: Settings) -> bool:
    """Whether Redis is fakeredis inside this process."""
    return settings.redis_url.startswith("memory://")


def safe_address(settings: Settings) -> str:
    """Where Redis is, in words for logs and errors: never with credentials."""
    if is_embedded(settings):
        return f"the embedded Valkey of {settings.data_dir}"
    if is_in_memory(settings):
        return "the memory of this process"
    found = ADDRESS.fullmatch(settings.redis_url)
    # A password with a character that should have been percent-encoded may be anywhere in what cannot be read.
    return f"{found[1]}{found[2]}" if found else f"{settings.redis_url.partition('://')[0]}://…"


def open_redis(settings: Settings) -> AegisRedis:
    """A client of the configured Redis that speaks our codec; it connects with its first command.

    Starts the embedded Valkey when the settings name no other Redis.

    Raises:
        ConfigurationError: the URL cannot be read.
        StoreUnreachable: the embedded Valkey does not start.
    """
    if is_in_memory(settings):
        from bridge.in_memory_redis import open_in_memory  # loading fakeredis takes longer than most commands

        client = open_in_memory()
    else:
        client = open_at(resolve(settings))
    client.events_max_len = settings.events_max_len
    client.job_serializer = job_serializer
    client.job_deserializer = job_deserializer_accepting_pickle if settings.accept_pickle else job_deserializer
    return client


async def connect(settings: Settings) -> AegisRedis:
    """Like `open_redis`, and Redis has answered.

    Raises:
        StoreUnreachable: it did not.
    """
    client = open_redis(settings)
    try:
        await client.ping()
    except (*STORE_AWAY, OSError) as error:
        await client.aclose(close_connection_pool=True)
        raise StoreUnreachable(safe_address(settings), str(error) or type(error).__name__) from None
    return client


def arq_redis_settings(settings: Settings) -> RedisSettings:
    """The same place as arq wants it; nothing is started or contacted before arq connects.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    if is_in_memory(settings):
        return DeferredRedisSettings(lambda: refuse_in_memory())
    if is_embedded(settings):
        return DeferredRedisSettings(lambda: resolve(settings))
    return resolve(settings)


class DeferredRedisSettings(RedisSettings):
    """`RedisSettings` that are looked up when arq first reads one: importing a WorkerSettings starts nothing."""

    def __init__(self, look_up: Callable[[], RedisSettings]) -> None:
        self.look_up = cache(look_up)

    def __getattribute__(self, name: str) -> Any:
        if name in RedisSettings.__dataclass_fields__:
            return getattr(self.look_up(), name)
        return super().__getattribute__(name)


def refuse_in_memory() -> RedisSettings:
    raise ConfigurationError("memory:// lives inside one process: use `aegis-tasks serve`, or set REDIS_URL")


def resolve(settings: Settings) -> RedisSettings:
    if is_embedded(settings):
        return read_url(ensure_running(settings.data_dir), settings.redis_db)
    if settings.redis_url.startswith("sentinel://"):
        return read_sentinel_url(settings.redis_url, settings.redis_db)
    return read_url(settings.redis_url, settings.redis_db)


def read_url(url: str, database: int) -> RedisSettings:
    """arq's own parser keeps percent signs in passwords and drops TLS options; redis-py's does not."""
    try:
        options = dict(parse_url(url))
        options.pop("connection_class", None)
        named: dict[str, Any] = {FROM_URL.get(name, name): value for name, value in options.items()}
        tls: dict[str, Any] = {"ssl": True, "ssl_check_hostname": True} if url.startswith("rediss://") else {}
        return RedisSettings(**({"database": database} | tls | named))
    except (TypeError, ValueError):
        raise ConfigurationError(UNREADABLE) from None


def read_sentinel_url(url: str, database: int) -> RedisSettings:
    """``sentinel://[user:password@]host[:port],host[:port]/master[?db=0]``."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(UNREADABLE) from None
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    master = parts.path.strip("/")
    if not hosts or not master:
        raise ConfigurationError("REDIS_URL: a sentinel URL is sentinel://host:port,host:port/master-name")
    try:
        sentinels = [
            (host, int(port or SENTINEL_PORT)) for host, _, port in (h.partition(":") for h in hosts.split(","))
        ]
        database = int(parse_qs(parts.query).get("db", [str(database)])[0])
    except ValueError:
        raise ConfigurationError(UNREADABLE) from None
    return RedisSettings(
        host=sentinels,
        sentinel=True,
        sentinel_master=master,
        database=database,
        username=unquote(user) or None,
        password=unquote(password) or None,
    )


def same_place(redis: Redis) -> Redis:
    """Another client of the same Redis, with connections of its own: for blocking reads, or another event loop.

    It notices a silent Redis after a few seconds, whatever the first one does.
    """
    pool = redis.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        known = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            [(options["host"], options["port"]) for options in known],
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=SOCKET_TIMEOUT_S,
        )
        own = ("connection_pool", "host", "port")
        options = {name: value for name, value in pool.connection_kwargs.items() if name not in own}
        client: Redis = sentinel.master_for(pool.service_name, **{**options, "socket_timeout": SOCKET_TIMEOUT_S})
        return client
    options = dict(pool.connection_kwargs)
    if "server" not in options:  # fakeredis answers at once and knows no timeouts
        options["socket_timeout"] = SOCKET_TIMEOUT_S
        options["socket_connect_timeout"] = options.get("socket_connect_timeout") or CONNECT_TIMEOUT_S
    return Redis(
        connection_pool=FastPool(
            connection_class=fast(pool.connection_class), max_connections=MAX_CONNECTIONS, **options
        )
    )


def open_at(where: RedisSettings) -> AegisRedis:
    """A client of the place that arq's settings describe; it connects with its first command."""
    common: dict[str, Any] = {
        "db": where.database,
        "username": where.username,
        "password": where.password,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
    }
    if where.sentinel:
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            where.host, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=SOCKET_TIMEOUT_S
        )
        client: AegisRedis = sentinel.master_for(where.sentinel_master, redis_class=AegisRedis, **common)
        return client
    client = AegisRedis(
        host=where.host,
        port=where.port,
        unix_socket_path=where.unix_socket_path,
        ssl=where.ssl,
        ssl_keyfile=where.ssl_keyfile,
        ssl_certfile=where.ssl_certfile,
        ssl_cert_reqs=where.ssl_cert_reqs,
        ssl_ca_certs=where.ssl_ca_certs,
        ssl_check_hostname=where.ssl_check_hostname,
        **common,
    )
    # The plain pool connects one connection after the other: while Redis is silent, the n-th caller would wait
    # n times as long for the bad news.
    pool = client.connection_pool
    client.connection_pool = FastBlockingPool(
        connection_class=fast(pool.connection_class),
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_S,
        **pool.connection_kwargs,
    )
    return client
