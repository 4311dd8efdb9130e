import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ztunnel.cli import main as module
from ztunnel.cli.main import Commands, main
from ztunnel.errors import ConfigError, Fault, Unsupported

ROOT = Path(module.__file__).parents[2]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The commands of a directory with a good and two broken modules."""
    (tmp_path / "main.py").touch()
    (tmp_path / "_part.py").touch()
    (tmp_path / "not_there.py").write_text('"""Imports what is missing."""\nimport nothing_of_this_name\n')
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "demo.py").write_text('"""One line.\n\nAnother."""\n')
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    return Commands("x")


def test_every_module_is_a_command_and_a_broken_one_breaks_only_itself(commands: Commands) -> None:
    shown = CliRunner().invoke(commands, ["--help"]).output
    assert "demo       One line." in shown
    assert "not-there  Imports what is missing." in shown
    assert "broken     (cannot be loaded" in shown
    assert "_part" not in shown
    assert "main" not in shown.replace("x [OPTIONS]", "")
    assert CliRunner().invoke(commands, ["demo", "--help"]).exit_code == 0
    done = CliRunner().invoke(commands, ["not-there"])
    assert done.exit_code == 1
    assert "the command 'not-there' cannot be loaded: No module named" in done.output


def test_an_unknown_command_is_answered_with_those_that_are_there() -> None:
    done = CliRunner().invoke(main, ["demos"])
    assert done.exit_code == 2
    assert "no command 'demos'; there are:" in done.output


@pytest.mark.parametrize(
    "error", [Unsupported("no such kernel"), ConfigError(Fault("a.yaml", 1, "x", "no such kernel"))]
)
def test_what_the_operator_has_to_fix_is_one_message(error: Exception) -> None:
    group = Commands("x")

    @click.command()
    def fails() -> None:
        raise error

    group.get_command = lambda ctx, name: fails  # type: ignore[method-assign]
    group.list_commands = lambda ctx: ["fails"]  # type: ignore[method-assign]
    done = CliRunner().invoke(group, ["fails"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "no such kernel" in done.output


def test_help_imports_no_command() -> None:
    script = "import sys; from ztunnel.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    script += "assert not [name for name in sys.modules if name.startswith(('ztunnel.demo', 'trio', 'yaml'))]"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ztunnel", "-h"], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert "demo" in done.stdout


@pytest.mark.parametrize(("pid", "status"), [(1, 128 + signal.SIGTERM), (2, -signal.SIGTERM)])
def test_the_first_process_of_a_container_can_be_told_to_end_while_it_starts(pid: int, status: int) -> None:
    """The kernel leaves it alone where it has no handler: its pod would wait for its whole grace."""
    code = (
        "import os, signal; from ztunnel.cli.main import obey_from_the_start as obey; "
        f"obey({pid}); os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=4).returncode == status
