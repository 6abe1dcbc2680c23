"""Settings from the environment: read once, checked whole, handed on; nothing here is a singleton."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from dotenv import dotenv_values
from msgspec import Meta

from bridge.errors import ConfigurationError

__all__ = ["Settings", "read_settings"]

OWN_QUEUES: Final = (
    "workers.queues.system.WorkerSettings",
    "workers.queues.load_test.WorkerSettings",
    "workers.queues.media.WorkerSettings",
)

Port = Annotated[int, Meta(ge=1, le=65535)]
PositiveInt = Annotated[int, Meta(ge=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment says; every field has a default, so an empty environment is a valid one.

    ``docs/reference/settings.md`` is the table of these for people; a test compares the two.

    Attributes:
        redis_url: where the jobs are. Empty starts the embedded Valkey of ``data_dir``; otherwise
            ``redis://``, ``rediss://``, ``unix://``, ``sentinel://host,host/master`` or ``memory://``.
        redis_db: database number, used when ``redis_url`` names none.
        keep_result_s: how long a result can be read after its job ended; 0 keeps none.
        max_tries: attempts of a job, the first included, where its task does not say.
        queues: import paths of ``WorkerSettings`` classes (or of modules that hold one).
        host: address the gateway listens on.
        port: port the gateway listens on.
        data_dir: folder of the embedded Valkey and of ``serve``'s logs.
        max_body_bytes: largest request body the gateway reads.
        max_batch_bytes: largest body of a batch it reads.
        events_max_len: entries the event stream keeps (approximately: Redis trims whole nodes).
        access_log: the gateway writes a line for each request.
        accept_pickle: execute pickled payloads of trusted producers during a migration.
    """

    redis_url: str = ""
    redis_db: Annotated[int, Meta(ge=0)] = 0
    keep_result_s: Annotated[int, Meta(ge=0)] = 3600
    max_tries: PositiveInt = 3
    queues: tuple[str, ...] = OWN_QUEUES
    host: str = "127.0.0.1"
    port: Port = 8000
    data_dir: Path = Path(".aegis")
    max_body_bytes: PositiveInt = 1024 * 1024
    max_batch_bytes: PositiveInt = 4 * 1024 * 1024
    events_max_len: PositiveInt = 1_000_000
    access_log: bool = True
    accept_pickle: bool = False


VARIABLES: Final = {
    "REDIS_URL": "redis_url",
    "REDIS_DB": "redis_db",
    "WORKER_KEEP_RESULT_SECONDS": "keep_result_s",
    "WORKER_MAX_TRIES": "max_tries",
    "AEGIS_QUEUES": "queues",
    "AEGIS_HOST": "host",
    "AEGIS_PORT": "port",
    "AEGIS_DATA_DIR": "data_dir",
    "AEGIS_MAX_BODY_BYTES": "max_body_bytes",
    "AEGIS_MAX_BATCH_BYTES": "max_batch_bytes",
    "AEGIS_EVENTS_MAX_LEN": "events_max_len",
    "AEGIS_ACCESS_LOG": "access_log",
    "AEGIS_ACCEPT_PICKLE": "accept_pickle",
}
"""Environment variable -> field of `Settings`."""

FIELD_TYPES: Final = {field.name: field.type for field in msgspec.structs.fields(Settings)}
REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://", "sentinel://", "memory://")


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Returns the settings that the environment describes.

    Args:
        environ: variables to read. The default is ``.env`` of the current folder with the process's
            own environment over it.

    Raises:
        ConfigurationError: an ``AEGIS_`` name is not known, or a value is not of its type; the
            message names the variable.
    """
    if environ is None:
        from_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
        environ = {**from_file, **os.environ}
    refuse_unknown_names(environ)
    values: dict[str, Any] = {
        field: parse(name, environ[name]) for name, field in VARIABLES.items() if environ.get(name)
    }
    return Settings(**values)


def refuse_unknown_names(environ: Mapping[str, str]) -> None:
    for name in sorted(environ):
        if name.startswith("AEGIS_") and name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(VARIABLES)}"
            raise ConfigurationError(f"unknown setting {name}; {hint}")


def parse(name: str, text: str) -> object:
    field = VARIABLES[name]
    if field == "queues":
        return tuple(path.strip() for path in text.split(",") if path.strip())
    if field == "data_dir":
        return Path(text)
    if field == "redis_url" and not text.startswith(REDIS_SCHEMES):
        raise ConfigurationError(f"REDIS_URL must start with one of {', '.join(REDIS_SCHEMES)}, or be empty")
    try:
        return msgspec.convert(text, FIELD_TYPES[field], strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}={text!r}: {error}") from None
