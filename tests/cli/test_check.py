"""`ztunnel check`: exit status, formats, signs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.analyze.kubectl import Fake
from tests.analyze.test_forward import listing, pod
from tests.analyze.test_strict import HEAD, sample
from tests.cli.test_explain import page
from ztunnel.analyze.checks import Check, State
from ztunnel.cli import check as command
from ztunnel.cli.main import main

GOOD = Check("kernel", "version", State.OK, "6.1")
POOR = Check("limits", "descriptors", State.WARN, "1024", "raise it")
BAD = Check("limits", "port 1", State.FAIL, "taken", "stop who has it")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def run(*checks: Check, words: tuple[str, ...] = ()) -> Result:
        monkeypatch.setattr(command, "probe_machine", lambda settings: list(checks))
        return CliRunner().invoke(main, ["check", *words])

    return run


def test_only_failures_fail_unless_it_is_strict(call: Callable[..., Result]) -> None:
    assert call(GOOD, POOR).exit_code == 0
    assert call(GOOD, POOR, words=("--fail-on-warnings",)).exit_code == 1
    assert call(GOOD, BAD).exit_code == 1
    assert "1 ok, 0 warnings, 1 failures" in call(GOOD, BAD).output


def test_words_instead_of_signs_where_nobody_looks(call: Callable[..., Result]) -> None:
    assert "[warn]" in call(POOR).output


def test_formats_say_the_same(call: Callable[..., Result]) -> None:
    as_json = json.loads(call(GOOD, POOR, words=("-o", "json")).output)
    assert as_json == yaml.safe_load(call(GOOD, POOR, words=("-o", "yaml")).output)
    assert [one["state"] for one in as_json] == ["ok", "warn"]


OBJECTS = """{"apiVersion": "v1", "kind": "List", "items": [
 {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
  "spec": {"containers": [{"name": "c"}]}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}}]}"""


def test_strict_asks_every_node_proxy_of_the_cluster(kubectl: Fake) -> None:
    metrics = HEAD + sample(3)
    with page(lambda path: (200, metrics if path == "/metrics" else "")) as address:
        port = address.rpartition(":")[2]
        kubectl(
            f"""case "$*" in
            *port-forward*) echo 'Forwarding from 127.0.0.1:{port} -> 1'; exec sleep 60;;
            *"get pods -l"*) {listing(pod("a", "n1"), pod("b", "n2"))}
            ;;
            "get pods -A"*) cat <<'END'
{OBJECTS}
END
            ;;
            *) echo '{{"apiVersion": "v1", "kind": "List", "items": []}}';;
            esac"""
        )
        found = CliRunner().invoke(main, ["check", "--strict", "shop", "--cluster"])
    assert found.exit_code == 1
    assert "6 connections to shop/web since its node proxy started" in found.output
    assert "[warn] shop/web     not in the mesh" in found.output
