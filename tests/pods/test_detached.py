"""Pods that are left out: by an operator, or because the mesh ends here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tests.builders import workload
from ztunnel.model.workload import LeftTo
from ztunnel.pods.detached import LeftOut, name_of
from ztunnel.telemetry.readiness import Readiness

A = workload("a").on("n1").hbone()
B = workload("b").on("n1").hbone()
PLAIN = workload("p").on("n1").plain()


class File:
    def __init__(self) -> None:
        self.pods: set[str] = set()
        self.names: Mapping[int, str] = {}

    def read(self) -> set[str]:
        return self.pods

    def remember(self, names: Mapping[int, str]) -> None:
        self.names = names


class Case:
    def __init__(self) -> None:
        self.file, self.readiness = File(), Readiness()
        self.said: list[str] = []
        self.left_out = LeftOut(
            self.readiness, lambda _, **values: self.said.append(" ".join(values.values()))
        )
        self.left_out.exceptions = self.file

    def wanted(self) -> set[str]:
        return set(self.left_out.wanted([A, B, PLAIN]))


def test_who_is_detached_is_not_wanted_and_that_is_said_once() -> None:
    case = Case()
    assert case.wanted() == {A.uid, B.uid}
    case.file.pods = {name_of(A.uid)}
    for _ in range(2):
        assert case.wanted() == {B.uid}
    assert case.said == [name_of(A.uid)]
    assert f"detached pods: {name_of(A.uid)}: by `ztunnel detach`" in case.readiness.render(0.0)[1]
    case.file.pods = set()
    assert case.wanted() == {A.uid, B.uid}
    assert case.said[1:] == ["none any more"]
    assert "detached" not in case.readiness.render(0.0)[1]


def test_where_the_mesh_ends_nobody_is_wanted() -> None:
    case = Case()
    case.left_out.ends = True
    assert case.wanted() == set()
    assert case.left_out.apart == {A.uid, B.uid}  # nor do they have to wait when they start


def test_pods_are_written_down_by_their_names() -> None:
    case = Case()
    case.left_out.remember({A.uid: 7})
    assert case.file.names == {7: name_of(A.uid)}
    assert name_of("Kubernetes//Pod/shop/orders-1") == "shop/orders-1"


def test_without_a_file_nobody_is_detached() -> None:
    left_out = LeftOut(Readiness(), lambda message, **values: None)
    assert set(left_out.wanted([A])) == {A.uid}
    left_out.remember({A.uid: 7})


def test_pods_of_other_meshes_are_named_with_the_reason_once() -> None:
    case = Case()
    sidecar = replace(PLAIN, left_to=LeftTo.SIDECAR)
    istio = replace(B.native(), left_to=LeftTo.ISTIO)
    for _ in range(2):
        assert set(case.left_out.wanted([A, istio, sidecar])) == {A.uid, istio.uid}
        case.left_out.leave({A.uid: "it is served"})
    assert case.left_out.left.keys() == {A.uid, sidecar.uid}
    assert sorted(case.said) == [
        f"{name_of(A.uid)} it is served",
        f"{name_of(sidecar.uid)} it has a sidecar",
    ]
    assert f"pods of other meshes: {name_of(A.uid)}: it is served; " in case.readiness.render(0.0)[1]
    case.left_out.wanted([A, B, PLAIN])
    case.left_out.leave({})
    assert "other meshes" not in case.readiness.render(0.0)[1]
