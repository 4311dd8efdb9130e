"""Other pairs of proxies that a run is to measure: `--peer NAME=FILE`.

docs/benchmark.md says what stands in FILE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from bench.cells import BARE, ENVOY, OURS
from ztunnel.errors import ConfigError, Fault

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,30}")
_ENDS = ("client", "server")
_KNOWN = {"start", "stop"}


@dataclass(frozen=True, slots=True)
class Commands:
    """Of one end, with places to fill in."""

    start: tuple[str, ...]
    stop: tuple[str, ...] | None

    def filled(self, known: Mapping[str, object]) -> Commands:
        """With what is known in its place. Raises KeyError: a place that nobody knows."""

        def fill(words: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(Template(word).substitute(known) for word in words)

        return Commands(fill(self.start), None if self.stop is None else fill(self.stop))


@dataclass(frozen=True, slots=True)
class Peer:
    """A pair of proxies.

    Attributes:
        calls: where the client calls in the place of a port of the server, `host:port`; what is not there
            is called itself, and the start of the client's end redirects it.
    """

    name: str
    number: int
    client: Commands
    server: Commands
    calls: Mapping[int, tuple[str, int]]

    @property
    def namespace(self) -> str:
        """Of its pods."""
        return f"peer-{self.number}"


def read_peer(given: str, number: int) -> Peer:
    """The peer that a `NAME=FILE` of the command line names.

    Raises:
        ConfigError: everything that is wrong with it.
    """
    name, _, file = given.partition("=")
    if not _NAME.fullmatch(name) or not file or name in (OURS, BARE, ENVOY):
        raise ConfigError(
            Fault("--peer", 0, given, f"not NAME=FILE with a name that is not {BARE}, {ENVOY} or {OURS}")
        )
    try:
        text = Path(file).read_text()
        value = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(Fault(file, 0, "", f"cannot be read: {error}")) from error
    return parse_peer(value, file, name, number)


def parse_peer(value: Any, file: str, name: str, number: int) -> Peer:
    """The peer of what stands in a file. Raises ConfigError, as `read_peer`."""
    faults: list[Fault] = []
    if not isinstance(value, dict) or set(value) - {*_ENDS, "calls"} or not set(_ENDS) <= set(value):
        fault = Fault(file, 0, "", "not a mapping with `client` and `server`, and perhaps `calls`")
        raise ConfigError(fault)
    client, server = (_commands(value[end], file, end, faults) for end in _ENDS)
    calls = _calls(value.get("calls") or {}, file, faults)
    if faults:
        raise ConfigError(*faults)
    return Peer(name, number, client, server, calls)


def _commands(value: Any, file: str, end: str, faults: list[Fault]) -> Commands:
    if not isinstance(value, dict) or set(value) - _KNOWN or "start" not in value:
        faults.append(Fault(file, 0, end, "not a mapping with `start`, and perhaps `stop`"))
        return Commands((), None)
    start = _words(value["start"], file, f"{end}.start", faults)
    stop = _words(value["stop"], file, f"{end}.stop", faults) if value.get("stop") else None
    return Commands(start, stop)


def _words(value: Any, file: str, field: str, faults: list[Fault]) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        faults.append(Fault(file, 0, field, "not a command: a list of texts"))
        return ()
    known = dict.fromkeys(PLACES, "")
    for word in value:
        try:
            Template(word).substitute(known)
        except (KeyError, ValueError) as error:
            message = (
                f"{word!r} has a place that is not known ({error}); known: {', '.join(PLACES)}; $$ is a $"
            )
            faults.append(Fault(file, 0, field, message))
    return tuple(value)


PLACES = ("directory", "client", "server", "namespace", "access_log")
"""What may stand in a command as `$name`: a folder with ca.pem, client.pem, client.key, server.pem and
server.key, into which it may write; the addresses of both pods; their namespace, whose service accounts are
`client` and `server`; `on` or `off`."""


def _calls(value: Any, file: str, faults: list[Fault]) -> Mapping[int, tuple[str, int]]:
    found: dict[int, tuple[str, int]] = {}
    if not isinstance(value, dict):
        faults.append(Fault(file, 0, "calls", "not a mapping of the server's ports to HOST:PORT"))
        return found
    for port, place in value.items():
        host, _, number = str(place).rpartition(":")
        if not isinstance(port, int) or not host or not number.isdecimal():
            faults.append(Fault(file, 0, f"calls.{port}", f"{place!r} is not HOST:PORT, or {port!r} no port"))
            continue
        found[port] = host.strip("[]"), int(number)
    return found
