"""`ztunnel attach`; what it undoes is in `test_detach.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ztunnel.cli.main import main

pytestmark = pytest.mark.root


def test_where_nothing_is_detached_nothing_happens(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["attach", "--node", "n1", "--run-dir", str(tmp_path)])
    assert (done.exit_code, list(tmp_path.iterdir())) == (0, [])
    assert done.output.endswith("detached is now: none\n")


def test_it_asks_which_node_is_meant(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["attach", "--run-dir", str(tmp_path)])
    assert (done.exit_code, "which node is this?" in done.output) == (2, True)
