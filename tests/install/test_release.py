"""Helm's words for a release."""

from __future__ import annotations

import pytest
import yaml

from ztunnel.install.release import PROFILES, Release
from ztunnel.install.run import chart

ONE = Release("/chart", "zs", values=("a.yaml", "b.yaml"), sets=("x=1",), timeout_seconds=60)


def test_installing_and_upgrading_are_one() -> None:
    assert ONE.installing() == [
        "upgrade", "--install", "ztunnel", "/chart", "--namespace", "zs", "--create-namespace", "--wait",
        "--timeout", "60s", "--values", "a.yaml", "--values", "b.yaml", "--set", "x=1",
    ]  # fmt: skip
    assert "--wait" not in ONE.installing(wait=False)


def test_what_the_user_sets_counts_more_than_a_profile() -> None:
    words = Release("/chart", profile="istiod", sets=("control.enabled=true",)).rendering()
    assert words.index("control.enabled=false") < words.index("control.enabled=true")


def test_removing_waits() -> None:
    assert ONE.removing() == ["uninstall", "ztunnel", "--namespace", "zs", "--wait", "--timeout", "60s"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_sets_values_that_the_chart_has(profile: str) -> None:
    values = yaml.safe_load((chart() / "values.yaml").read_text())
    for one in PROFILES[profile]:
        place = values
        for step in one.partition("=")[0].split("."):
            assert step in place
            place = place[step]
