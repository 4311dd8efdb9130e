"""Who calls and who is called, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.explain.test_explanation import FAR, OLD, explained
from ztunnel.model.workload import LeftTo, Workload


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (OLD, "not in the mesh"),
        (replace(OLD, left_to=LeftTo.SIDECAR), "not in the mesh (its sidecar serves it)"),
        (replace(FAR.native(), left_to=LeftTo.ISTIO), "not in the mesh (Istio's ztunnel serves it)"),
    ],
)
def test_why_a_pod_is_not_in_the_mesh_is_said(other: Workload, said: str) -> None:
    to = explained("default/client", f"{other.addresses[0]}:8080", other)
    assert to.destination.endswith(said)
    assert f"{said}: " in explained(f"default/{other.name}", "10.0.0.1:8080", other).source


def test_who_is_not_known_is_said() -> None:
    found = explained("192.0.2.9", "192.0.2.1:443")
    assert found.source == "192.0.2.9, nobody that is known: without an identity"
    assert found.destination == "192.0.2.1:443, nobody that is known"
