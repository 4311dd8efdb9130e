"""Other pairs of proxies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bench.peers import parse_peer, read_peer
from bench.prepare import peer_way
from ztunnel.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "benchmark.md"
GOOD = {
    "client": {"start": ["proxy", "--to", "$server", "--cost", "5$$"], "stop": ["nft", "flush", "ruleset"]},
    "server": {"start": ["sh", "-c", "exec proxy --cert $directory/server.pem --log $access_log"]},
    "calls": {80: "127.0.0.1:15001", 5001: "[::1]:15004"},
}


def test_commands_are_filled_in() -> None:
    peer = parse_peer(GOOD, "x.yaml", "other", 3)
    known = {"server": "10.0.0.1", "directory": "/d", "client": "", "namespace": "", "access_log": "off"}
    assert peer.client.filled(known).start == ("proxy", "--to", "10.0.0.1", "--cost", "5$")
    assert peer.client.filled(known).stop == ("nft", "flush", "ruleset")
    assert peer.server.filled(known).start[2] == "exec proxy --cert /d/server.pem --log off"
    assert peer.server.stop is None
    assert peer.namespace == "peer-3"


def test_the_client_calls_what_is_said_and_else_the_server_itself() -> None:
    way = peer_way(parse_peer(GOOD, "x.yaml", "other", 0), "a/client", "a/far", "10.0.0.1")
    assert (way.host, way.ports, way.sink) == ("127.0.0.1", (15001,), ("::1", 15004))
    bare = {end: GOOD[end] for end in ("client", "server")}
    way = peer_way(parse_peer(bare, "x.yaml", "other", 0), "a/client", "a/far", "10.0.0.1")
    assert (way.host, way.ports, way.sink) == ("10.0.0.1", (80, 81, 82, 83), ("10.0.0.1", 5001))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "x.yaml: not a mapping"),
        ({"client": GOOD["client"]}, "not a mapping with `client` and `server`"),
        ({**GOOD, "gateway": {}}, "not a mapping"),
        ({**GOOD, "client": {"stop": ["x"]}}, "client: not a mapping with `start`"),
        ({**GOOD, "server": {"start": "proxy --to x"}}, "server.start: not a command"),
        ({**GOOD, "server": {"start": ["x", "$nobody"]}}, r"server.start: '\$nobody' has a place"),
        ({**GOOD, "server": {"start": ["x", "5$"]}}, "server.start"),
        ({**GOOD, "calls": {80: "nowhere"}}, "calls.80: 'nowhere' is not HOST:PORT"),
        ({**GOOD, "calls": ["x"]}, "calls: not a mapping"),
    ],
)
def test_what_is_wrong_is_named(value, said) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_peer(value, "x.yaml", "other", 0)


@pytest.mark.parametrize("given", ["other", "=x.yaml", "Envoy=x.yaml", "other=/nowhere/x.yaml"])
def test_so_is_a_file_that_cannot_be_had(given) -> None:
    with pytest.raises(ConfigError):
        read_peer(given, 0)


def test_the_documented_example_is_one() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert examples
    for number, text in enumerate(examples):
        assert parse_peer(yaml.safe_load(text), "docs", "other", number).client.start
