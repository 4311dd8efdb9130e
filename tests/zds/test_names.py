"""Names of the mesh, as pods are told them."""

from __future__ import annotations

import pytest

from tests.builders import service, world_of
from tests.zds.query import query, read_answer
from ztunnel.zds.names import answer_of_the_mesh
from ztunnel.zds.question import Kind

WEB = service("web", "shop").at("10.96.0.1", "fd96::1").port(80)
HEADLESS = service("db", "shop").port(5432)
WORLD = world_of(WEB, HEADLESS)


@pytest.mark.parametrize(
    ("name", "kind", "addresses"),
    [
        ("web.shop.svc.cluster.local", Kind.A, ["10.96.0.1"]),
        ("WEB.shop.svc.Cluster.local", Kind.AAAA, ["fd96::1"]),
        ("db.shop.svc.cluster.local", Kind.A, None),
        ("web.shop", Kind.A, None),
        ("web.shop.svc.cluster.local.shop.svc.cluster.local", Kind.A, None),
        ("example.com", Kind.A, None),
    ],
)
def test_services_with_addresses_are_answered_and_others_asked_elsewhere(
    name: str, kind: Kind, addresses: list[str] | None
) -> None:
    answer = answer_of_the_mesh(WORLD, "shop", query(name, kind))
    assert (answer and [str(ip) for ip in read_answer(answer)[3]]) == addresses


def test_a_name_of_the_mesh_without_an_address_of_that_kind_is_no_one_elses() -> None:
    only_v4 = world_of(service("web", "shop").at("10.96.0.1").port(80))
    answer = answer_of_the_mesh(only_v4, "shop", query("web.shop.svc.cluster.local", Kind.AAAA))
    assert answer is not None
    assert read_answer(answer)[3] == []


@pytest.mark.parametrize("untrusted", [b"", b"\0" * 12, query("web.shop.svc.cluster.local", 15)])
def test_what_is_no_such_question_is_asked_elsewhere(untrusted: bytes) -> None:
    assert answer_of_the_mesh(WORLD, "shop", untrusted) is None
