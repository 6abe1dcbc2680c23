"""Tokens: who may call the gateway, kept in a file that holds no secret.

A token is ``aegis_<id>_<secret>``. The file has the SHA-256 of it, which is enough for a secret of 256 random bits: see
decision 0013. Whoever may change the file decides who may call; the gateway reads it again when it has changed.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from bridge.errors import ConfigurationError, InvalidRequest, TokenExists, TokenNotFound
from bridge.file_lock import FileLock
from bridge.gateway.access import ANONYMOUS, SCOPES, Caller, Scope
from bridge.rate import Rate, read_rate
from bridge.settings import Settings

__all__ = ["KnownTokens", "Token", "Tokens", "tokens_path"]

logger = logging.getLogger("aegis.tokens")

PREFIX: Final = "aegis"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
SECRET_BYTES: Final = 32
Instant = Annotated[datetime, Meta(tz=True)]
LOOK_AGAIN_S: Final = 1.0
LOCK_TIMEOUT_S: Final = 10


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What the file has of a token.

    Attributes:
        id: the part of the token by which it is found; no secret.
        sha256: of the whole token, in hexadecimal.
        scopes: what it allows, see `bridge.gateway.access`.
        rate: requests it may send, as in ``100/s``; ``None`` is the gateway's own limit.
        expires_at: it is not valid from then on; ``None`` is never.
    """

    name: str
    id: Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...]
    created_at: Instant
    rate: str | None = None
    expires_at: Instant | None = None


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    tokens: list[Token] = []


def tokens_path(settings: Settings) -> Path:
    """Where the tokens are."""
    return Path(settings.tokens_file) if settings.tokens_file else settings.data_dir / "tokens.json"


class Tokens:
    """The file of tokens; a missing one has none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Token]:
        """Every token, the expired ones too.

        Raises:
            ConfigurationError: the file cannot be read, or is not one of ours.
        """
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=Document).tokens
            for token in found:
                if token.rate is not None:
                    read_rate(token.rate)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise ConfigurationError(f"AEGIS_TOKENS_FILE: {self.path} cannot be read: {error.strerror}") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConfigurationError(f"AEGIS_TOKENS_FILE: {self.path} is no file of tokens: {error}") from None
        return found

    def create(
        self, name: str, scopes: Sequence[str], *, rate: str | None = None, lifetime_s: float | None = None
    ) -> tuple[str, Token]:
        """A new token, and what the file has of it from now on: the token itself is nowhere else.

        Args:
            name: who will use it.
            scopes: what it allows.
            rate: requests it may send, as in ``100/s``.
            lifetime_s: how long it is valid; for ever by default.

        Raises:
            InvalidRequest: the name, a scope, the rate or the lifetime is not one.
            TokenExists: the name is taken.
            ConfigurationError: the file cannot be read or written.
        """
        check(name, scopes, rate)
        now = datetime.now(UTC)
        try:
            expires_at = None if lifetime_s is None else now + timedelta(seconds=lifetime_s)
        except (OverflowError, ValueError):
            raise InvalidRequest("so long a time cannot be told; leave it out", path="--expires") from None
        token_id = secrets.token_hex(4)
        text = f"{PREFIX}_{token_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
        token = Token(
            name=name,
            id=token_id,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            created_at=now,
            rate=rate,
            expires_at=expires_at,
        )
        with self._changing() as tokens:
            if any(other.name == name for other in tokens):
                raise TokenExists(name)
            tokens.append(token)
        return text, token

    def revoke(self, name: str) -> Token:
        """The token of this name is not valid any more: gateways that run notice within a second or two.

        Raises:
            TokenNotFound: there is none.
            ConfigurationError: the file cannot be read or written.
        """
        with self._changing() as tokens:
            revoked = next((token for token in tokens if token.name == name), None)
            if revoked is None:
                raise TokenNotFound(name)
            tokens.remove(revoked)
        return revoked

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens, to be changed in place: written as a whole at the end, or not at all after an error."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self.path.with_name(f"{self.path.name}.lock")) as lock:
                wait_for(lock)
                tokens = self.read()
                yield tokens
                self._write(tokens)
        except OSError as error:
            raise ConfigurationError(f"AEGIS_TOKENS_FILE: {self.path} cannot be written: {error.strerror}") from None

    def _write(self, tokens: list[Token]) -> None:
        document = msgspec.json.format(msgspec.json.encode(Document(tokens=tokens)), indent=2)
        new = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.new")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(document + b"\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)


def check(name: str, scopes: Sequence[str], rate: str | None) -> None:
    if not NAME.fullmatch(name) or name == ANONYMOUS.name:
        raise InvalidRequest(f"{name!r} is no name for a token: write letters, digits, '.', '_' and '-'", path="NAME")
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        told = f"there is no scope {unknown[0]!r}" if unknown else "a token needs a scope"
        raise InvalidRequest(f"{told}; scopes: {', '.join(SCOPES)}", path="--scope")
    if rate is not None:
        try:
            read_rate(rate)
        except ValueError as error:
            raise InvalidRequest(f"--rate {rate!r}: {error}", path="--rate") from None


def wait_for(lock: FileLock) -> None:
    deadline_s = time.monotonic() + LOCK_TIMEOUT_S
    while not lock.take():
        if time.monotonic() > deadline_s:
            raise ConfigurationError("AEGIS_TOKENS_FILE: another command has been changing it for too long")
        time.sleep(0.01)


class Known(NamedTuple):
    """A token as a gateway keeps it."""

    caller: Caller
    digest: bytes
    rate: Rate | None
    expires_at_s: float

    @property
    def is_current(self) -> bool:
        """Whether it has not expired."""
        return time.time() < self.expires_at_s


class KnownTokens:
    """The tokens as a running gateway knows them, at most about a second old.

    A file that cannot be read any more leaves them as they were, with a line in the log for each change of it.

    Attributes:
        were_any: whether there has ever been one in the file. It stays so: a gateway that asks for tokens goes on
            asking, also when the last one is revoked or the file is lost.

    Raises:
        ConfigurationError: the file cannot be read at first.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.were_any = False
        self._by_id: dict[bytes, Known] = {}
        self._by_caller: dict[Caller, Known] = {}
        self._version = self._version_now()
        self._look_at_s = time.monotonic() + LOOK_AGAIN_S
        self._keep(tokens.read())

    def refresh(self) -> None:
        """Reads the file again if it has changed, and a second has gone by."""
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_AGAIN_S
        version = self._version_now()
        if version == self._version:
            return
        self._version = version
        try:
            self._keep(self.tokens.read())
        except ConfigurationError as error:
            self.were_any = True  # something is there: whoever wrote it did not mean to let everybody in
            logger.error("the tokens stay as they were: %s", error)

    def find(self, text: bytes) -> Known | None:
        """The token that is written so, if it is valid."""
        known = self._by_id.get(text.split(b"_", 2)[1]) if text.count(b"_") > 1 else None
        if known is None or not known.is_current:
            return None
        return known if hmac.compare_digest(known.digest, hashlib.sha256(text).digest()) else None

    def has(self, caller: Caller) -> bool:
        """Whether this caller's token is still valid."""
        known = self._by_caller.get(caller)
        return known is not None and known.is_current

    def _keep(self, tokens: list[Token]) -> None:
        kept = {token.id.encode(): known(token) for token in tokens}
        self._by_id = kept
        self._by_caller = {one.caller: one for one in kept.values()}
        self.were_any = self.were_any or bool(tokens)

    def _version_now(self) -> tuple[int, int, int] | None:
        with suppress(OSError):
            found = self.tokens.path.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
        return None


def known(token: Token) -> Known:
    return Known(
        caller=Caller(name=token.name, token_id=token.id, scopes=frozenset(token.scopes)),
        digest=bytes.fromhex(token.sha256),
        rate=read_rate(token.rate) if token.rate is not None else None,
        expires_at_s=token.expires_at.timestamp() if token.expires_at else float("inf"),
    )
