"""`ztunnel install`: what Helm is told, and what the user is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from ztunnel.cli.main import main

Fake = Callable[[str], Path]
NONE = """case "$1" in list) echo '[]';; esac"""
OLD = """case "$1" in list) echo '[{"chart": "ztunnel-0.0.9"}]';; esac"""


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["install", *words])


def test_it_installs_and_says_what_comes_next(fake_helm: Fake) -> None:
    words = fake_helm(NONE)
    found = call("--set", "node.sameNode=mtls", "--profile", "istiod")
    assert found.exit_code == 0
    assert "the mesh is installed in namespace ztunnel-system" in found.output
    assert "kubectl label namespace NAME istio.io/dataplane-mode=ambient" in found.output
    last = words.read_text().splitlines()[-1]
    assert last.startswith("upgrade|--install|ztunnel|")
    assert last.endswith("|--set|node.sameNode=mtls|")


def test_what_is_there_is_brought_to_this_version(fake_helm: Fake) -> None:
    fake_helm(OLD)
    assert "ztunnel-0.0.9 is brought to this version" in call().output


def test_a_dry_run_only_prints(fake_helm: Fake) -> None:
    words = fake_helm("echo 'kind: DaemonSet'")
    assert call("--dry-run").output == "kind: DaemonSet\n\n"
    assert words.read_text().startswith("template|")
    assert len(words.read_text().splitlines()) == 1


def test_what_helm_refuses_is_said_with_the_next_command(fake_helm: Fake) -> None:
    fake_helm(NONE + '\n[ "$1" = list ] || { echo "Error: values do not meet the schema" >&2; exit 1; }')
    found = call()
    assert found.exit_code == 1
    assert "Error: values do not meet the schema\nLook at it: ztunnel status" in found.output


def test_an_operation_that_was_interrupted_is_named_with_its_way_out(fake_helm: Fake) -> None:
    locked = "Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress"
    fake_helm(OLD + f'\n[ "$1" = list ] || {{ echo "{locked}" >&2; exit 1; }}')
    found = call()
    assert found.exit_code == 1
    assert "`helm rollback ztunnel -n ztunnel-system` goes back to what was before it" in found.output
