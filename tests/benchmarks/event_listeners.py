"""Many clients of a gateway's event stream in one process: plain sockets, so that they cost little themselves.

Prints ``ready`` when all are connected; ends when each has got so many events, or nothing came for long.
"""

import argparse
import json
import re
import selectors
import socket
import time
from array import array
from statistics import quantiles
from typing import Final

REQUEST: Final = b"GET /api/v1/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
GREETED: Final = b": events follow\n\n"
SENT: Final = re.compile(rb'"sent_ns":(\d+)}}}')
SILENCE_S: Final = 5


def connect(port: int, count: int) -> list[socket.socket]:
    """Sockets that have been greeted."""
    connections = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        connection.sendall(REQUEST)
        connections.append(connection)
    for connection in connections:
        said = b""
        while GREETED not in said:
            said += connection.recv(4096)
        connection.setblocking(False)
    return connections


def listen(connections: list[socket.socket], wanted: int) -> "array[int]":
    """How long each event took to each client, in ns."""
    latencies_ns = array("q")
    rests = dict.fromkeys(connections, b"")
    left = wanted * len(connections)
    with selectors.EpollSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
        heard_s = 0.0
        while left > 0 and (not heard_s or time.monotonic() - heard_s < SILENCE_S):
            # First everything is read, then it is looked at: that must not count as time on the way.
            parts = []
            for key, _ in selector.select(1):
                connection = key.data
                part = connection.recv(262_144)
                parts.append((connection, part, time.monotonic_ns()))
            known: dict[bytes, list[int]] = {}  # most clients are sent the same
            for connection, part, now_ns in parts:
                said = rests[connection] + part
                if (sent_ns := known.get(said)) is None:
                    sent_ns = known[said] = [int(digits) for digits in SENT.findall(said)]
                latencies_ns.extend([now_ns - one_ns for one_ns in sent_ns])
                left -= len(sent_ns)
                rests[connection] = said[said.rfind(b"\n\n") :]
            if parts:
                heard_s = time.monotonic()
    return latencies_ns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--events", type=int, required=True)
    options = parser.parse_args()
    opened = connect(options.port, options.clients)
    print("ready", flush=True)
    taken = listen(opened, options.events)
    cuts = quantiles(taken, n=100)
    values = {
        "p50_ms": cuts[49] / 1e6,
        "p99_ms": cuts[98] / 1e6,
        "missed": options.events * options.clients - len(taken),
    }
    print(json.dumps(values))
