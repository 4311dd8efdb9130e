"""`ztunnel hold`: what it has to be told, and a process that holds until it is told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.kernel.lab import unique
from tests.mesh.lab import wait_until
from ztunnel.cli.main import main
from ztunnel.run.handover import holder_of


def call(*words: object, **environment: str | None) -> Result:
    env = {"NODE_NAME": None, **environment}
    return CliRunner().invoke(main, ["hold", *map(str, words)], env=env)


def test_it_asks_which_node_this_is() -> None:
    done = call()
    assert done.exit_code == 2
    assert "Give --node NAME, or set NODE_NAME" in done.output


def test_a_wrong_setting_is_named() -> None:
    done = call(NODE_NAME="n1", ZTUNNEL_HOLD_TIMEOUT="long")
    assert done.exit_code == 1
    assert "ZTUNNEL_HOLD_TIMEOUT: 'long' is not a duration such as" in done.output


@pytest.mark.root
def test_without_a_place_for_its_socket_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call("--node", "n1", "--run-dir", tmp_path / "file")
    assert done.exit_code == 1
    assert "nothing can be left at" in done.output


@pytest.mark.root
@pytest.mark.timeout(60)
def test_it_holds_until_it_is_told_to_end(tmp_path: Path) -> None:
    node = unique()
    words = [sys.executable, "-m", "ztunnel", "hold", "--node", node, "--run-dir", str(tmp_path)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, env={**os.environ, "HOME": str(tmp_path)}
    ) as process:
        try:
            place = holder_of(tmp_path, Path(node))
            wait_until(place.exists, "it listens", 20)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert not place.exists()
        finally:
            process.kill()
