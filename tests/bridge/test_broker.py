from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from bridge.broker import arq_redis_settings, connect, is_away, open_redis, safe_address
from bridge.errors import ConfigurationError, StoreUnreachable
from bridge.settings import Settings


def of(url: str, **changes: int) -> Settings:
    return Settings(redis_url=url, **changes)  # type: ignore[arg-type]


def test_redis_url_is_read_whole() -> None:
    where = arq_redis_settings(of("redis://user:p%40ss@example:6380/2"))
    assert (where.host, where.port, where.database) == ("example", 6380, 2)
    assert (where.username, where.password, where.ssl) == ("user", "p@ss", False)


def test_database_of_the_settings_counts_where_the_url_has_none() -> None:
    assert arq_redis_settings(of("redis://example", redis_db=4)).database == 4
    assert arq_redis_settings(of("redis://example/1", redis_db=4)).database == 1


def test_tls_url_checks_the_host_name_unless_told_otherwise() -> None:
    where = arq_redis_settings(of("rediss://example"))
    assert (where.ssl, where.ssl_check_hostname, where.ssl_cert_reqs) == (True, True, "required")
    assert not arq_redis_settings(of("rediss://example?ssl_check_hostname=false")).ssl_check_hostname


def test_unix_url_names_the_socket() -> None:
    where = arq_redis_settings(of("unix:///run/valkey.sock?db=3"))
    assert (where.unix_socket_path, where.database) == ("/run/valkey.sock", 3)


def test_sentinel_url_names_the_sentinels_and_the_master() -> None:
    where = arq_redis_settings(of("sentinel://u:p%23w@one:26380,two/mymaster?db=2"))
    assert where.host == [("one", 26380), ("two", 26379)]
    assert (where.sentinel, where.sentinel_master, where.database) == (True, "mymaster", 2)
    assert (where.username, where.password) == ("u", "p#w")


@pytest.mark.parametrize(
    "url", ["sentinel://one", "sentinel:///m", "sentinel://one:port/m", "redis://example:port", "redis://h?timeout=1"]
)
def test_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        arq_redis_settings(of(url))


@pytest.mark.parametrize("password", ["4nd/mor3", "4nd#mor3", "4nd?mor3", "4nd?p=mor3", "[4ndmor3", "4nd%mor3:"])
def test_error_of_a_url_does_not_repeat_its_password(password: str) -> None:
    for url in (f"redis://:{password}@example", f"sentinel://:{password}@one:port/m", f"sentinel://:{password}@one"):
        try:
            arq_redis_settings(of(url))
        except ConfigurationError as error:
            assert "4nd" not in str(error)  # noqa: PT017 - some of them can be read
            assert "mor3" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@example:6380/2", "redis://example:6380/2"),
        ("rediss://:secret@example?password=secret", "rediss://example"),
        ("sentinel://u:secret@one,two/master", "sentinel://one,two/master"),
        ("redis://:se@cret@example:6380/2", "redis://example:6380/2"),
        ("redis://:se/cret@example:6380/2", "redis://…"),
        ("redis://:se#cret@example:6380/2", "redis://…"),
        ("redis://:se?cret@example:6380/2", "redis://…"),
        ("unix://user:secret@/run/valkey.sock?db=1", "unix:///run/valkey.sock"),
        ("", "the embedded Valkey of .aegis"),
        ("memory://", "the memory of this process"),
    ],
)
def test_address_for_logs_has_no_secret(url: str, shown: str) -> None:
    assert safe_address(of(url)) == shown


async def test_nothing_there_is_one_clear_error() -> None:
    with pytest.raises(StoreUnreachable, match=r"Redis at redis://127\.0\.0\.1:1 cannot be reached"):
        await connect(of("redis://127.0.0.1:1"))


@pytest.mark.parametrize(
    "reply", ["NOREPLICAS Not enough good replicas to write.", "MISCONF Errors writing to the AOF"]
)
def test_reply_of_a_server_in_trouble_means_away(reply: str) -> None:
    assert is_away(ResponseError(reply))
    assert not is_away(ResponseError("WRONGTYPE Operation against a key"))


async def test_clients_in_memory_share_their_jobs() -> None:
    first, second = open_redis(of("memory://")), open_redis(of("memory://"))
    try:
        await first.set("shared", b"1", px=1000)
        assert await second.get("shared") == b"1"
    finally:
        await first.delete("shared")
        await first.aclose(close_connection_pool=True)
        await second.aclose(close_connection_pool=True)


def test_naming_the_embedded_valkey_starts_nothing(tmp_path: Path) -> None:
    where = arq_redis_settings(Settings(data_dir=tmp_path / "data"))
    assert "password" not in repr(where)
    assert not (tmp_path / "data").exists()


def test_memory_is_refused_where_another_process_would_need_it() -> None:
    with pytest.raises(ConfigurationError, match="inside one process"):
        _ = arq_redis_settings(of("memory://")).host
