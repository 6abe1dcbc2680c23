"""A run of schemathesis against a gateway: requests that fit its OpenAPI document, and such as do not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

__all__ = ["SchemaRun", "run_schemathesis"]

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = "/schema/openapi.json"
# Whether a request that fits is accepted depends on which tasks and jobs there are, which a schema cannot say.
UNFIT: Final = ("positive_data_acceptance",)
UNFIT_WITHOUT_TOKENS: Final = ("ignored_auth", "missing_required_header", "negative_data_rejection")


class SchemaRun(msgspec.Struct, frozen=True):
    """What came of a run.

    Attributes:
        cases: requests that were sent.
        failures: what was wrong, each with the routes where it was seen; none when all was well.
        output: what schemathesis printed, with the requests to send again.
    """

    cases: int
    failures: list[str]
    output: str


def run_schemathesis(
    url: str, folder: Path, *, token: str | None, examples: int, seed: int, timeout_s: float
) -> SchemaRun:
    """Sends requests to every route, but for those that stream, which never end.

    Args:
        url: the gateway.
        folder: for the report.
        token: sent with every request; ``None`` when the gateway is open.
        examples: requests of each kind for each route.
        seed: the same one makes the same requests.
        timeout_s: longest run.
    """
    report = folder / "schemathesis.json"
    unfit = UNFIT if token else (*UNFIT, *UNFIT_WITHOUT_TOKENS)
    options = {
        "--max-examples": str(examples),
        "--seed": str(seed),
        "--exclude-checks": ",".join(unfit),
        "--report": "json",
        "--report-json-path": str(report),
        "--generation-database": "none",
        "--request-timeout": "20",
        "--warnings": "off",
    }
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}{DOCUMENT}", "--continue-on-failure"]
    command += [word for option in options.items() for word in option]
    command += [word for path in streams(url) for word in ("--exclude-path", path)]
    command += ["-H", f"Authorization: Bearer {token}"] if token else []
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, timeout=timeout_s, check=False)
    output = done.stdout.decode() + done.stderr.decode()
    if not report.exists():
        raise RuntimeError(output)
    told: dict[str, Any] = msgspec.json.decode(report.read_bytes())
    failures = [f"{one['title']}: {', '.join(one['operations'])}" for one in told["failures"]]
    failures += [str(error) for error in told["errors"]]
    if not told["complete"]:
        failures.append("the run was not completed")
    return SchemaRun(cases=told["test_cases"]["generated"], failures=failures, output=output)


def streams(url: str) -> list[str]:
    """The addresses whose answers never end."""
    paths: dict[str, dict[str, Any]] = httpx.get(f"{url}{DOCUMENT}").json()["paths"]
    return [
        path
        for path, operations in paths.items()
        if any("text/event-stream" in str(operation.get("responses")) for operation in operations.values())
    ]
