"""What the ways of a call say together."""

from __future__ import annotations

import pytest

from ztunnel.explain.path import Explanation, Path, Way


def way(to: str = "a/b", refused: str = "", onward: tuple[Path, ...] = ()) -> Path:
    return Path(to, "10.0.0.1:80", "n1", Way.HBONE, not refused, refused or "fine", onward=onward)


@pytest.mark.parametrize(
    ("paths", "verdict"),
    [
        ((way(),), "allowed: fine"),
        ((way(refused="no"),), "refused: no"),
        ((way(), way(refused="no")), "refused by 1 of 2 endpoints: no"),
        ((way("a/w", onward=(way(refused="no"),)),), "refused: behind a/w, no"),
        ((way("a/w", onward=(way(refused="no"), way())),), "allowed: fine"),
        ((way("a/w", refused="not you", onward=(way(),)),), "refused: not you"),
    ],
)
def test_the_verdict_is_one_sentence(paths: tuple[Path, ...], verdict: str) -> None:
    found = Explanation("from", "to", paths)
    assert found.verdict == verdict
    assert found.allowed == verdict.startswith("allowed")
