"""Completion: what is printed works, in a shell that is here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ztunnel.cli.main import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    found = CliRunner().invoke(main, ["completion", shell])
    assert found.exit_code == 0
    assert "_ZTUNNEL_COMPLETE=" in found.output


def test_another_shell_is_refused() -> None:
    found = CliRunner().invoke(main, ["completion", "tcsh"])
    assert found.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in found.output


@pytest.mark.timeout(30)
def test_bash_completes_commands_and_options() -> None:
    program = Path(sys.executable).with_name("ztunnel")
    script = """
        source <(ztunnel completion bash)
        COMP_WORDS=(ztunnel "$1" "$2") COMP_CWORD=$3
        _ztunnel_completion ztunnel
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def complete(*words: str) -> str:
        return subprocess.run(
            ["bash", "-c", script, "bash", *words],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.strip()

    assert complete("expl", "", "1") == "explain"
    assert complete("analyze", "--clu", "2") == "--cluster"
