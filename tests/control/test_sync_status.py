"""How far subscribers are, in the words of istiod."""

from datetime import UTC, datetime

from ztunnel.control.sync_status import SubscriberStatus, dump
from ztunnel.xds.publisher import TypeStatus
from ztunnel.xds.subscriber import describe_node

WALL = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
TYPE = "type.googleapis.com/istio.workload.Address"


def subscriber(name, node_id="", connected_at=40.0, **types):
    node = describe_node(
        node_id or f"ztunnel~10.0.0.1~{name}.sys~sys.svc.cluster.local",
        {"NODE_NAME": "n1", "CLUSTER_ID": "c", "ISTIO_VERSION": "1.2"},
    )
    return SubscriberStatus(node, "spiffe://x", connected_at, types, dict.fromkeys(types, 90.0))


def test_a_subscriber_is_told_as_istiod_tells_it():
    status = TypeStatus("2", "1", "b: cannot", True)
    (one,) = dump([subscriber("zt", **{TYPE: status})], 100.0, WALL)
    assert one == {
        "cluster_id": "c", "proxy": "zt.sys", "proxy_type": "ztunnel", "istio_version": "1.2", "node": "n1",
        "identity": "spiffe://x", "connected": "2026-01-01T11:59:00Z",
        "resources": {
            TYPE: {
                "sent": "2", "acked": "1", "sent_time": "2026-01-01T11:59:50Z", "last_error": "b: cannot",
                "pending": False,
            }
        },
    }  # fmt: skip


def test_proxies_are_in_order_and_odd_ids_are_kept():
    found = dump([subscriber("b"), subscriber("a"), subscriber("", node_id="odd")], 100.0, WALL)
    assert [one["proxy"] for one in found] == ["a.sys", "b.sys", "odd"]


def test_of_a_subscriber_that_has_said_nothing_nothing_is_known():
    silent = SubscriberStatus(describe_node("", {}), "", 100.0, {}, {})
    (one,) = dump([silent], 100.0, WALL)
    assert (one["proxy"], one["node"], one["resources"]) == ("", "", {})
