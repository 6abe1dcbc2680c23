"""``make fuzz``: thousands of requests, fitting and not, to gateways that run; none may be the gateway's fault."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, given, seed, settings

from bridge.tokens import Tokens
from tests.benchmarks.throw_away_valkey import throw_away_valkey
from tests.cli.processes import Commands
from tests.end_to_end.serving import start_gateway
from tests.fuzz.raw_requests import addresses, assert_is_no_fault, raw_requests, said
from tests.fuzz.schema_run import run_schemathesis

TIMEOUT_S: Final = 1800
EXAMPLES: Final = 200


class Gateway:
    """A gateway that runs, and what was sent to it.

    Attributes:
        token: sent with every request; ``None`` when it is open, or the requests are to be refused.
    """

    def __init__(self, name: str, url: str, token: str | None) -> None:
        self.name = name
        self.url = url
        self.token = token
        self.cases = 0
        self.failures: list[str] = []


@contextmanager
def gateways(folder: Path) -> Iterator[list[Gateway]]:
    """One that is open, and one that asks for tokens, seen by a caller who has one and by one whose is wrong."""
    with throw_away_valkey() as port:
        commands = Commands(folder, REDIS_URL=f"redis://127.0.0.1:{port}/0")
        token = Tokens(folder / "tokens.json").create("fuzz", ["admin"])[0]
        started = [
            start_gateway(commands),
            start_gateway(commands, AEGIS_TOKENS_FILE=str(folder / "tokens.json")),
        ]
        urls = [f"http://127.0.0.1:{port}" for _, port in started]
        try:
            yield [
                Gateway("open", urls[0], None),
                Gateway("with a token", urls[1], token),
                Gateway("with a wrong token", urls[1], "aegis_00000000_wrong"),
            ]
            for process, _ in started:
                process.assert_is_running()
                faults = [line for line in process.stderr.splitlines() if '"level":"error"' in line]
                assert not faults, "\n".join(faults[:10])
        finally:
            commands.close()


def send_raw(gateway: Gateway, requests: int, seed_: int) -> None:
    """So many requests of any bytes."""
    paths = addresses(gateway.url)
    port = int(gateway.url.rpartition(":")[2])

    @seed(seed_)
    @settings(max_examples=requests, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(request=raw_requests(paths, f"Bearer {gateway.token}".encode()))
    def send(request: bytes) -> None:
        gateway.cases += 1
        assert_is_no_fault(said(port, request))

    try:
        send()
    except AssertionError as error:
        gateway.failures.append(str(error))


def main() -> int:
    """0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=12_000, help="at least so many requests")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same makes the same requests")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name, gateways(Path(name)) as all_gateways:
        for round_ in count():
            for gateway in all_gateways:
                run = run_schemathesis(
                    gateway.url,
                    Path(name),
                    token=gateway.token,
                    examples=EXAMPLES,
                    seed=options.seed + round_,
                    timeout_s=TIMEOUT_S,
                )
                gateway.cases += run.cases
                gateway.failures += run.failures
                if run.failures:
                    print(run.output)
                send_raw(gateway, EXAMPLES * 5, options.seed + round_)
                print(f"{gateway.name}: {gateway.cases} requests, {len(gateway.failures)} failures", flush=True)
            total = sum(gateway.cases for gateway in all_gateways)
            failures = [failure for gateway in all_gateways for failure in gateway.failures]
            if total >= options.cases or failures:
                break
    print(f"\n{total} requests in {time.monotonic() - started_s:.0f} s: {len(failures)} failures")
    for failure in failures:
        print(f"- {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
