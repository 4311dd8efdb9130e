"""A client that opens new connections at a steady rate, or asks over one that stays, and says how it went.

python -m bench.caller RATE SECONDS PORT HOST...    each host in turn; the client closes first
python -m bench.caller --stay RATE SECONDS PORT HOST
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

THREADS = 16
PATIENCE_SECONDS = 5.0


@dataclass(slots=True)
class Outcome:
    """Seconds of each call that was answered, and what became of the others, by the error's name."""

    seconds: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, ask: Callable[[], None]) -> None:
        """Do it once."""
        began = time.perf_counter()
        try:
            ask()
        except OSError as error:
            self.failed[type(error).__name__ if error.errno is None else str(error.strerror)] += 1
        else:
            self.seconds.append(time.perf_counter() - began)

    def render(self) -> str:
        """One line of JSON."""
        return json.dumps({"seconds": self.seconds, "failed": self.failed})


def call(host: str, port: int) -> None:
    """A new connection, one byte, its echo. Raises OSError."""
    with socket.create_connection((host, port), timeout=PATIENCE_SECONDS) as connection:
        echo(connection)


def echo(connection: socket.socket) -> None:
    """Raises OSError."""
    connection.sendall(b"?")
    if connection.recv(1) != b"?":
        raise ConnectionAbortedError("no answer")


def paced(each: Callable[[int], None], rate: float, seconds: float, offset: float = 0.0) -> None:
    """Call it `rate` times a second; where it takes too long, the next ones follow at once."""
    began = time.monotonic() + offset / rate
    for number in range(int(rate * seconds)):
        left = began + number / rate - time.monotonic()
        if left > 0:
            time.sleep(left)
        each(number)


def open_many(rate: float, seconds: float, places: Sequence[tuple[str, int]]) -> Outcome:
    """New connections, over all threads together at this rate."""
    outcome = Outcome()

    def one_thread(thread: int) -> None:
        def each(number: int) -> None:
            place = places[(number * THREADS + thread) % len(places)]
            outcome.add(lambda: call(*place))

        paced(each, rate / THREADS, seconds, thread / THREADS)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one_thread, range(THREADS)))
    return outcome


def stay(rate: float, seconds: float, place: tuple[str, int]) -> Outcome:
    """Bytes and their echoes over one connection."""
    outcome = Outcome()
    with socket.create_connection(place, timeout=PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        paced(lambda _: outcome.add(lambda: echo(connection)), rate, seconds)
    return outcome


def main(words: Sequence[str]) -> None:
    """Prints one line of JSON."""
    stays = words[0] == "--stay"
    rate, seconds, port, *hosts = words[stays:]
    places = [(host, int(port)) for host in hosts]
    if stays:
        print(stay(float(rate), float(seconds), places[0]).render())
    else:
        print(open_many(float(rate), float(seconds), places).render())


if __name__ == "__main__":
    if "--stay" not in sys.argv:
        # Load: it runs when nothing else does, so that others feel what it calls, and not itself.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    main(sys.argv[1:])
