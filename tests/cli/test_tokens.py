"""`aegis-tasks tokens`: the token goes to standard output alone, and is nowhere else."""

import json
from pathlib import Path

import pytest

from bridge.gateway.access import SCOPES
from bridge.settings import Settings
from bridge.tokens import KnownTokens, Tokens
from cli.gateway import choose_address
from tests.cli.conftest import InProcess
from tests.cli.processes import find_free_port


@pytest.fixture
def tokens_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "tokens.json"
    monkeypatch.setenv("AEGIS_TOKENS_FILE", str(path))
    return path


def test_token_is_alone_on_standard_output(in_process: InProcess, tokens_file: Path) -> None:
    ended = in_process("tokens", "create", "shop", "--scope", "tasks:write", "--scope", "tasks:read")

    assert ended.exit_code == 0
    token = ended.stdout.removesuffix("\n")
    found = KnownTokens(Tokens(tokens_file)).find(token.encode())
    assert found is not None
    assert found.caller.scopes == {"tasks:write", "tasks:read"}
    assert "not shown again" in ended.stderr
    assert token not in ended.stderr


def test_token_as_json(in_process: InProcess, tokens_file: Path) -> None:
    arguments = ("--scope", "admin", "--rate", "100/s", "--expires", "90d", "--json")
    ended = in_process("tokens", "create", "shop", *arguments)
    told = json.loads(ended.stdout)
    assert (told["name"], told["scopes"], told["rate"]) == ("shop", ["admin"], "100/s")
    assert told["expires_at"] > told["created_at"]
    assert KnownTokens(Tokens(tokens_file)).find(told["token"].encode())
    assert ended.stderr == ""


def test_list_shows_everything_but_the_secret(in_process: InProcess, tokens_file: Path) -> None:
    token = in_process("tokens", "create", "shop", "--scope", "tasks:write", "--rate", "5/m").stdout.strip()
    secret = token.split("_", 2)[2]
    table, document = in_process("tokens", "list"), in_process("tokens", "list", "--json")
    assert "shop" in table.stdout
    assert "5/m" in table.stdout
    assert "never" in table.stdout
    (listed,) = json.loads(document.stdout)
    assert listed.keys() == {"name", "id", "scopes", "rate", "created_at", "expires_at"}
    stored = json.loads(tokens_file.read_text())["tokens"][0]["sha256"]
    for text in (table.stdout, document.stdout):
        assert secret not in text
        assert stored not in text


def test_list_of_none_and_of_an_expired_one(in_process: InProcess, tokens_file: Path) -> None:
    assert in_process("tokens", "list").stdout == "no tokens\n"
    assert in_process("tokens", "list", "--json").stdout == "[]\n"
    in_process("tokens", "create", "shop", "--scope", "admin", "--expires", "0s")
    assert "expired" in in_process("tokens", "list").stdout


def test_revoke(in_process: InProcess, tokens_file: Path) -> None:
    in_process("tokens", "create", "shop", "--scope", "tasks:write")
    assert in_process("tokens", "revoke", "shop").stdout == "shop is revoked\n"
    ended = in_process("tokens", "revoke", "shop")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "there is no token named 'shop'" in ended.stderr


def test_revoke_as_json(in_process: InProcess, tokens_file: Path) -> None:
    in_process("tokens", "create", "shop", "--scope", "tasks:write")
    assert json.loads(in_process("tokens", "revoke", "shop", "--json").stdout) == {"revoked": "shop"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["shop"], 2, "--scope"),
        (["shop", "--scope", "everything"], 2, f"scopes: {', '.join(SCOPES)}"),
        (["a b", "--scope", "admin"], 2, "is no name for a token"),
        (["shop", "--scope", "admin", "--rate", "fast"], 2, "such as 100/s"),
        (["shop", "--scope", "admin", "--expires", "soon"], 2, "--expires"),
        (["shop", "--scope", "admin", "--expires", "99999999999d"], 2, "so long a time cannot be told"),
        (["taken", "--scope", "admin"], 1, "a token named 'taken' exists"),
    ],
)
def test_wrong_use_is_told_and_makes_no_token(
    in_process: InProcess, tokens_file: Path, arguments: list[str], code: int, told: str
) -> None:
    in_process("tokens", "create", "taken", "--scope", "admin")
    ended = in_process("tokens", "create", *arguments)
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert told in ended.stderr
    assert [token.name for token in Tokens(tokens_file).read()] == ["taken"]


def test_gateway_refuses_to_be_reached_by_others_without_a_token(in_process: InProcess, tokens_file: Path) -> None:
    ended = in_process("gateway", "--host", "0.0.0.0", "--port", str(find_free_port()))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "aegis-tasks tokens create" in ended.stderr
    assert "--insecure" in ended.stderr


def test_gateway_may_be_reached_by_others_with_a_token_or_when_told(tokens_file: Path) -> None:
    settings, port = Settings(tokens_file=str(tokens_file)), find_free_port()
    assert choose_address(settings, "0.0.0.0", port, is_insecure=True) == ("0.0.0.0", port)
    Tokens(tokens_file).create("shop", ["admin"])
    assert choose_address(settings, "0.0.0.0", port, is_insecure=False) == ("0.0.0.0", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_gateway_does_not_start_with_tokens_that_cannot_be_read(
    in_process: InProcess, tokens_file: Path, host: str
) -> None:
    tokens_file.write_text("{")
    ended = in_process("gateway", "--host", host, "--port", str(find_free_port()))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "AEGIS_TOKENS_FILE" in ended.stderr
