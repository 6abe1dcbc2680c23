"""The file of tokens, and what a running gateway knows of it."""

import hashlib
import logging
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import tokens as module
from bridge.errors import ConfigurationError, InvalidRequest, TokenExists, TokenNotFound
from bridge.settings import Settings
from bridge.tokens import KnownTokens, Tokens, tokens_path
from tests.cli.processes import wait_until


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "folder" / "tokens.json")


@pytest.fixture
def known(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> KnownTokens:
    """What a gateway knows that looks at the file each time."""
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0)
    return KnownTokens(tokens)


def test_token_is_recognisable_and_has_256_random_bits(tokens: Tokens) -> None:
    text, token = tokens.create("shop", ["tasks:write"])
    assert re.fullmatch(rf"aegis_{token.id}_[A-Za-z0-9_-]{{43}}", text)
    assert tokens.create("other", ["tasks:write"])[0] != text


def test_file_has_the_hash_and_nothing_of_the_secret(tokens: Tokens) -> None:
    text, token = tokens.create("shop", ["tasks:write"])
    stored = tokens.path.read_text()
    assert hashlib.sha256(text.encode()).hexdigest() in stored
    assert text.rpartition(token.id)[2].strip("_") not in stored
    assert text not in repr(token) + repr(KnownTokens(tokens)) + repr(tokens)


def test_file_and_its_folder_are_private(tokens: Tokens) -> None:
    tokens.create("shop", ["tasks:write"])
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(tokens.path.parent.stat().st_mode) == 0o700
    assert {path.name for path in tokens.path.parent.iterdir()} == {"tokens.json", "tokens.json.lock"}


def test_missing_file_has_no_tokens(tokens: Tokens) -> None:
    assert tokens.read() == []
    assert not tokens.path.parent.exists()


def test_path_is_in_the_data_folder_unless_a_setting_names_one(tmp_path: Path) -> None:
    assert tokens_path(Settings(data_dir=tmp_path)) == tmp_path / "tokens.json"
    assert tokens_path(Settings(tokens_file="/etc/aegis/tokens.json")) == Path("/etc/aegis/tokens.json")


def test_name_is_taken_until_it_is_revoked(tokens: Tokens) -> None:
    tokens.create("shop", ["tasks:write"])
    with pytest.raises(TokenExists, match="'shop'"):
        tokens.create("shop", ["tasks:read"])
    assert tokens.revoke("shop").name == "shop"
    with pytest.raises(TokenNotFound, match="'shop'"):
        tokens.revoke("shop")
    tokens.create("shop", ["tasks:read"])
    assert [(token.name, token.scopes) for token in tokens.read()] == [("shop", ("tasks:read",))]


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "é", "-x", "x" * 65, "anonymous", "a/b", "a:b"])
def test_name_that_is_none(tokens: Tokens, name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no name for a token"):
        tokens.create(name, ["tasks:write"])


@pytest.mark.parametrize(("scopes", "rate"), [([], None), (["tasks"], None), (["admin"], "0/s"), (["admin"], "5/d")])
def test_scope_or_rate_that_is_none(tokens: Tokens, scopes: list[str], rate: str | None) -> None:
    with pytest.raises(InvalidRequest):
        tokens.create("shop", scopes, rate=rate)
    assert tokens.read() == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"tokens": [{"name": "shop"}]}',
        b'{"tokens": [{"name":"a","id":"zz","sha256":"x","scopes":["admin"],"created_at":"2026-01-01T00:00:00Z"}]}',
        b"\xff",
    ],
)
def test_file_that_is_none_of_ours_is_told_and_left_as_it_is(tokens: Tokens, content: bytes) -> None:
    tokens.path.parent.mkdir()
    tokens.path.write_bytes(content)
    for change in (tokens.read, lambda: tokens.create("shop", ["admin"]), lambda: KnownTokens(tokens)):
        with pytest.raises(ConfigurationError, match="AEGIS_TOKENS_FILE"):
            change()
    assert tokens.path.read_bytes() == content


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"AEGIS_TOKENS_FILE: .* cannot be written"):
        Tokens(tmp_path / "file" / "tokens.json").create("shop", ["admin"])


def test_changes_at_the_same_time_are_all_kept(tokens: Tokens) -> None:
    threads = [threading.Thread(target=tokens.create, args=(f"t{n}", ["tasks:read"])) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in tokens.read()} == {f"t{n}" for n in range(20)}


# --- what a running gateway knows -----------------------------------------------------------------


def test_token_is_found_and_only_it(tokens: Tokens, known: KnownTokens) -> None:
    text, token = tokens.create("shop", ["tasks:write"], rate="5/s")
    other, _ = tokens.create("other", ["admin"])
    known.refresh()

    found = known.find(text.encode())

    assert found is not None
    assert (found.caller.name, found.caller.scopes) == ("shop", frozenset({"tasks:write"}))
    assert found.rate is not None
    assert found.rate.text == "5/s"
    mixed = f"aegis_{token.id}_{other.split('_', 2)[2]}"
    for wrong in (
        mixed,
        text[:-1],
        text + "x",
        text.upper(),
        text.replace("aegis", "ghp"),
        token.id,
        "",
        "__",
        "a_b_c",
    ):
        assert known.find(wrong.encode()) is None, wrong


def test_expired_token_is_none(tokens: Tokens, known: KnownTokens) -> None:
    text, _ = tokens.create("shop", ["tasks:write"], lifetime_s=0)
    lasting, _ = tokens.create("lasting", ["tasks:write"], lifetime_s=90 * 24 * 3600)
    known.refresh()
    assert known.find(text.encode()) is None
    assert known.find(lasting.encode()) is not None
    assert known.were_any


def test_revoked_token_is_none_and_the_gateway_stays_closed(tokens: Tokens, known: KnownTokens) -> None:
    assert not known.were_any
    text, _ = tokens.create("shop", ["tasks:write"])
    known.refresh()
    found = known.find(text.encode())
    assert found is not None
    assert known.has(found.caller)

    tokens.revoke("shop")
    known.refresh()

    assert known.find(text.encode()) is None
    assert not known.has(found.caller)
    assert known.were_any


def test_change_is_noticed_within_a_second_or_so(tokens: Tokens) -> None:
    known = KnownTokens(tokens)
    text, _ = tokens.create("shop", ["tasks:write"])

    def is_known() -> bool:
        known.refresh()
        return known.find(text.encode()) is not None

    wait_until(is_known, 5)


def break_it(path: Path) -> None:
    path.with_suffix(".new").write_text("{")
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("damage", [break_it])
def test_tokens_stay_as_they_were_when_the_file_is_broken(
    tokens: Tokens, known: KnownTokens, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    text, _ = tokens.create("shop", ["tasks:write"])
    known.refresh()
    damage(tokens.path)
    with caplog.at_level(logging.ERROR):
        known.refresh()
        known.refresh()
    assert known.find(text.encode()) is not None
    assert len(caplog.records) == 1  # once for each change
    assert text not in caplog.text


def test_broken_file_closes_a_gateway_that_had_none(tokens: Tokens, known: KnownTokens) -> None:
    tokens.path.parent.mkdir()
    tokens.path.write_text("{")
    known.refresh()
    assert known.were_any


def test_lost_file_takes_the_tokens_and_opens_nothing(tokens: Tokens, known: KnownTokens) -> None:
    text, _ = tokens.create("shop", ["tasks:write"])
    known.refresh()
    os.unlink(tokens.path)  # noqa: PTH108
    known.refresh()
    assert known.find(text.encode()) is None
    assert known.were_any
