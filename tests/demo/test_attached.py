import pytest

from ztunnel.demo.attached import is_attached, is_detached

POD = {"namespace": "shop", "canonicalName": "gate", "status": "Healthy"}
BOUND = {"namespace": "shop", "name": "orders", "waypoint": {}}
OTHERS = [
    {"namespace": "shop", "name": "frontend"},
    {"namespace": "else", "name": "orders", "waypoint": {}},
]


@pytest.mark.parametrize(
    ("service", "pod", "attached", "detached"),
    [
        (BOUND, POD, True, False),
        (BOUND, {**POD, "status": "Unhealthy"}, False, False),  # calls are refused
        (BOUND, {**POD, "canonicalName": "orders"}, False, False),
        (BOUND, {**POD, "namespace": "else"}, False, False),
        ({"namespace": "shop", "name": "orders"}, POD, False, False),  # it is still there
        ({"namespace": "shop", "name": "orders"}, {**POD, "namespace": "else"}, False, True),
    ],
)
def test_a_waypoint_is_attached_once_it_serves_and_detached_once_it_is_gone(
    service, pod, attached, detached
) -> None:
    dump = {"services": [service, *OTHERS], "workloads": [pod]}
    assert is_attached(dump, "shop", ("orders",), "gate") is attached
    assert is_detached(dump, "shop", ("orders",), "gate") is detached
