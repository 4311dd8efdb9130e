"""`ztunnel load` on a place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.kernel.lab import unique
from ztunnel.cli.main import main
from ztunnel.redirect import load as redirect_load

CACHE = "/var/cache/ztunnel"


def call(*words: object, **environment: str | None) -> Result:
    env = {"NODE_NAME": None, **environment}
    return CliRunner().invoke(main, ["load", *map(str, words)], env=env)


def test_it_asks_which_node_this_is() -> None:
    done = call()
    assert done.exit_code == 2
    assert "Give --node NAME, or set NODE_NAME" in done.output


def test_a_wrong_setting_is_named() -> None:
    done = call(NODE_NAME="n1", ZTUNNEL_LOAD_PROGRAMS="perhaps")
    assert done.exit_code == 1
    assert "ZTUNNEL_LOAD_PROGRAMS: 'perhaps' is not true or false" in done.output


@pytest.mark.root
@pytest.mark.timeout(60)
def test_it_loads_once_and_says_so() -> None:
    pins = Path("/sys/fs/bpf/ztunnel", unique())
    try:
        first = call("--cache-dir", CACHE, "--pins", pins, NODE_NAME="n1")
        assert (first.exit_code, first.output) == (0, f"{pins}: loaded\n")
        # Whatever else is set for the node's proxy.
        again = call("--cache-dir", CACHE, "--pins", pins, NODE_NAME="n1", ZTUNNEL_LOAD_PROGRAMS="false")
        assert (again.exit_code, again.output) == (0, f"{pins}: current, nothing to do\n")
    finally:
        redirect_load.remove(pins)


@pytest.mark.root
def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    done = call("--node", "n1", "--cache-dir", CACHE, "--pins", tmp_path / "pins")
    assert done.exit_code == 1
    assert "is on no bpffs" in done.output
