"""What Istio's protocol has no field for travels as extensions; what makes no sense is refused."""

import pytest
from google.protobuf.wrappers_pb2 import BoolValue, StringValue

from ztunnel.errors import PeerError
from ztunnel.model.workload import LeftTo, SameNode, Workload
from ztunnel.xds.address import parse_workload, render_workload
from ztunnel.xds.extension import FORWARDING, GATEWAY, LEFT_TO, POD_UID, SAME_NODE
from ztunnel.xds.pb import workload_pb2 as pb


def test_our_mode_for_one_node_travels_as_an_extension():
    sent = render_workload(Workload("u", "n", "ns", same_node=SameNode.MTLS))
    assert [extension.name for extension in sent.extensions] == [SAME_NODE]
    assert not render_workload(Workload("u", "n", "ns")).extensions


def test_that_it_may_forward_travels_as_an_extension():
    sent = render_workload(Workload("u", "n", "ns", forwards=True))
    assert [extension.name for extension in sent.extensions] == [FORWARDING]
    sent.extensions[0].config.Pack(StringValue(value="perhaps"))
    with pytest.raises(PeerError, match="allow"):
        parse_workload(sent)
    sent.extensions[0].config.value = b"\xff"
    with pytest.raises(PeerError, match="cannot be read"):
        parse_workload(sent)


def test_what_the_kubelet_knows_it_by_travels_as_an_extension():
    sent = render_workload(Workload("u", "n", "ns", pod_uid="0e78bcdb"))
    assert [extension.name for extension in sent.extensions] == [POD_UID]
    sent.extensions[0].config.Pack(BoolValue(value=True))
    with pytest.raises(PeerError, match="has to be a StringValue"):
        parse_workload(sent)


def test_who_else_serves_it_travels_as_an_extension():
    sent = render_workload(Workload("u", "n", "ns", left_to=LeftTo.ISTIO))
    assert [extension.name for extension in sent.extensions] == [LEFT_TO]
    sent.extensions[0].config.Pack(StringValue(value="somebody"))
    with pytest.raises(PeerError, match="none of sidecar, istio-cni"):
        parse_workload(sent)


def test_an_extension_of_others_is_passed_over():
    sent = pb.Workload(uid="u")
    sent.extensions.add(name="example.com/other").config.type_url = "type.googleapis.com/unknown"
    assert parse_workload(sent).same_node is SameNode.AUTO


def test_that_it_is_a_gateway_travels_as_an_extension():
    sent = render_workload(Workload("u", "n", "ns", gateway=True))
    assert [extension.name for extension in sent.extensions] == [GATEWAY]
    sent.extensions[0].config.Pack(StringValue(value="yes"))
    with pytest.raises(PeerError, match="has to be a BoolValue"):
        parse_workload(sent)
