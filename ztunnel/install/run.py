"""Runs Helm, with the user's own credentials."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.install.release import RELEASE

_SECONDS = 30.0
_LOGGED = re.compile(r"walk\.go:\d+: found symbolic link")
"""As the chart has in a checkout (Helm 3, internal/sympath/walk.go)."""


class HelmFailed(Exception):
    """Helm could not do it; the message is what it said."""


def chart() -> Path:
    """The chart of this version: beside this file where installed, else in the checkout."""
    here = Path(__file__)
    places = (here.parent / "chart", here.parents[2] / "deploy/charts/ztunnel")
    return next(place for place in places if (place / "Chart.yaml").is_file())


def helm(words: Sequence[str], seconds: float | None = None) -> str:
    """What Helm prints.

    Args:
        seconds: until it is ended; None where its words say so.

    Raises:
        Unsupported: it is not installed.
        HelmFailed: it could not do it.
    """
    path = shutil.which("helm")
    if path is None:
        raise Unsupported(
            "helm is not in PATH: install it (https://helm.sh), or apply deploy/kustomize with kubectl"
        )
    try:
        done = subprocess.run([path, *words], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise HelmFailed(f"helm {words[0]}: no answer within {seconds:.0f} s") from error
    if done.returncode:
        raise HelmFailed(_said(done.stderr) or f"helm {words[0]} failed without a word")
    return done.stdout


def _said(text: str) -> str:
    """Its error, without what it logs of the chart's links."""
    lines = (line for line in text.strip().splitlines() if not _LOGGED.match(line))
    return "\n".join(lines).removeprefix("Error: ")


def installed(namespace: str) -> str | None:
    """The version of the chart that is installed, as `ztunnel-1.2.3`; None where there is none.

    Raises:
        Unsupported, HelmFailed: as `helm`.
    """
    words = ["list", "--all", "--namespace", namespace, "--filter", f"^{RELEASE}$", "--output", "json"]
    found = json.loads(helm(words, _SECONDS) or "[]")
    return str(found[0]["chart"]) if found else None
