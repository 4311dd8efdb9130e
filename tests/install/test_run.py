"""Helm is run, and what it says is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ztunnel.errors import Unsupported
from ztunnel.install.run import HelmFailed, chart, helm, installed

Fake = Callable[[str], Path]


def test_the_chart_is_of_this_version() -> None:
    assert (chart() / "values.schema.json").is_file()


def test_what_helm_says_is_told(fake_helm: Fake) -> None:
    words = fake_helm("echo done")
    assert helm(["list", "a b"]) == "done\n"
    assert words.read_text() == "list|a b|\n"
    link = "walk.go:75: found symbolic link in path: files/alerts resolves to deploy/alerts"
    fake_helm(f"echo '{link}\nError: no such value' >&2; exit 1")
    with pytest.raises(HelmFailed, match=r"^no such value$"):
        helm(["upgrade"])
    fake_helm("exit 1")
    with pytest.raises(HelmFailed, match="helm upgrade failed without a word"):
        helm(["upgrade"])


def test_one_that_stands_still_is_ended(fake_helm: Fake) -> None:
    fake_helm("exec sleep 30")
    with pytest.raises(HelmFailed, match="no answer within 0 s"):
        helm(["list"], 0.05)


def test_without_helm_that_is_said_with_another_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="deploy/kustomize"):
        helm(["list"])


def test_what_is_installed_is_known_by_its_chart(fake_helm: Fake) -> None:
    fake_helm("echo '[]'")
    assert installed("zs") is None
    words = fake_helm("""echo '[{"name": "ztunnel", "chart": "ztunnel-0.1.0"}]'""")
    assert installed("zs") == "ztunnel-0.1.0"
    assert words.read_text().startswith("list|--all|--namespace|zs|")
    assert os.environ["PATH"].startswith(str(words.parent))
