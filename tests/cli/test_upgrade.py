"""`ztunnel upgrade`: only where there is something to upgrade."""

from __future__ import annotations

from click.testing import CliRunner

from tests.cli.test_install import NONE, OLD, Fake
from ztunnel.cli.main import main


def test_there_has_to_be_one(fake_helm: Fake) -> None:
    words = fake_helm(NONE)
    found = CliRunner().invoke(main, ["upgrade"])
    assert found.exit_code == 1
    assert "ztunnel install puts one there" in found.output
    assert "upgrade|" not in words.read_text()


def test_it_is_brought_to_this_version(fake_helm: Fake) -> None:
    words = fake_helm(OLD)
    found = CliRunner().invoke(main, ["upgrade", "--set", "a=b"])
    assert found.exit_code == 0
    assert words.read_text().splitlines()[-1].endswith("|--set|a=b|")
