"""Gives orders to a caller in a pod, and reads what it answers."""

from __future__ import annotations

import json
import select
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ztunnel.demo.command import module_command
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory
from ztunnel.model.address import Endpoint

PATIENCE_SECONDS = 3.0
_GRACE_SECONDS = 5.0  # for an answer beyond what the order may take, on a busy machine


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an order.

    Attributes:
        error: the name of an errno, `EOF` where the other end closed; empty where all went well.
        seconds: how long it took; `at` is its end on the monotonic clock.
        local, peer: getsockname and getpeername, as (host, port), once connected.
        mark: SO_MARK as the socket says it.
        echoed: bytes that came back, each as it was sent.
        fetched: bytes of a body.
        said: the JSON of an HTTP answer.
        ended: (error, at) of the connections that have ended, by name.
    """

    error: str = ""
    seconds: float = 0.0
    at: float = 0.0
    local: tuple[str, int] = ("", 0)
    peer: tuple[str, int] = ("", 0)
    mark: int = 0
    echoed: int = 0
    fetched: int = 0
    said: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, tuple[str, float]] = field(default_factory=dict)


def parse_answer(line: str) -> Answer:
    """An answer as `caller` prints it."""
    fields = json.loads(line)
    for name in ("local", "peer"):
        if name in fields:
            fields[name] = tuple(fields[name])
    if "ended" in fields:
        fields["ended"] = {name: (each["error"], each["at"]) for name, each in fields["ended"].items()}
    return Answer(**fields)


class Caller:
    """A process in a pod. `with` ends it, and its connections."""

    def __init__(self, laboratory: Laboratory, pod: str, prefix: Sequence[str] = ()) -> None:
        """`prefix` is a command that runs it, such as setpriv with its options.

        Raises:
            LaboratoryFailed: no such pod.
        """
        self.pod = laboratory.pod(pod)
        command = [*prefix, *module_command("ztunnel.demo.claims.caller")]
        pipe = subprocess.PIPE
        self._process: subprocess.Popen[str] = laboratory.popen(
            pod, command, stdin=pipe, stdout=pipe, text=True, bufsize=1
        )

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Close its connections and wait until it has ended."""
        self._process.kill()
        self._process.communicate()

    def open(self, name: str, to: Endpoint, *, mapped: bool = False, mark: int = 0) -> Answer:
        """Connect; `mapped` through an IPv6 socket to `::ffff:a.b.c.d`, `mark` with that SO_MARK."""
        return self._order("open", name=name, host=str(to.ip), port=to.port, mapped=mapped, mark=mark)

    def exchange(self, name: str, text: str = "ping", times: int = 1) -> Answer:
        """Send `text` so many times over an open connection and read the echo."""
        return self._order("exchange", name=name, text=text, times=times)

    def ask(self, name: str) -> Answer:
        """One HTTP request on an open connection."""
        return self._order("ask", name=name)

    def fetch(self, name: str, path: str) -> Answer:
        """One HTTP request on an open connection, for a body that only counts."""
        return self._order("fetch", name=name, path=path)

    def call(self, to: Endpoint, *, mapped: bool = False, mark: int = 0) -> Answer:
        """Connect, ask, close; the answer is that of whatever failed first, `seconds` is for both."""
        opened = self.open("call", to, mapped=mapped, mark=mark)
        if opened.error:
            return opened
        asked = self.ask("call")
        self.close("call")
        return Answer(
            error=asked.error,
            seconds=opened.seconds + asked.seconds,
            at=asked.at,
            local=opened.local,
            peer=opened.peer,
            mark=opened.mark,
            said=asked.said,
        )

    def lives(self, name: str) -> bool:
        """Whether bytes still go both ways."""
        return not self.exchange(name).error

    def ends(self, names: Sequence[str], seconds: float) -> dict[str, tuple[str, float]]:
        """Wait at most so long for these connections to end: (error, monotonic time) of those that did."""
        return self._order("ends", names=list(names), patience=seconds).ended

    def close(self, *names: str) -> None:
        """Close these connections; without a name all of them."""
        self._order("close", names=list(names))

    def _order(self, do: str, *, patience: float = PATIENCE_SECONDS, **fields: Any) -> Answer:
        """Raises LaboratoryFailed: the process is gone, or does not answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": do, "patience": patience, **fields}) + "\n")
        except OSError as error:
            raise LaboratoryFailed(f"the caller in {self.pod.full_name} is gone") from error
        if not select.select([stdout], [], [], patience + _GRACE_SECONDS)[0]:
            raise LaboratoryFailed(f"the caller in {self.pod.full_name} does not answer: {do} {fields}")
        line = stdout.readline()
        if not line:
            raise LaboratoryFailed(f"the caller in {self.pod.full_name} ended at: {do} {fields}")
        return parse_answer(line)
