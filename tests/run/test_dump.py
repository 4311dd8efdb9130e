from __future__ import annotations

import json
import re
import socket
from base64 import b64decode
from contextlib import ExitStack
from ipaddress import ip_address

import trio
import trio.lowlevel

from tests.builders import identity, workload
from tests.inbound.parts import Signer
from tests.run.parts import SETTINGS, built, served_by, until
from ztunnel.control.serve import Server
from ztunnel.errors import ConnectionFailed, NoCertificate
from ztunnel.identity.chain import parse_certificates
from ztunnel.model.address import Endpoint, OriginalDestination, PeerAddress
from ztunnel.model.connection import Connection
from ztunnel.outbound.connect import Call
from ztunnel.run.dump import dump_node, dump_proxy, dump_settings
from ztunnel.run.follow import ControlPlane
from ztunnel.state.delta import apply
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter


async def test_the_dump_has_the_world_the_pods_the_version_and_the_settings():
    with built(served_by(Server())) as (node, _):
        node.hold.publish(*apply(node.hold.world, [workload("a")]))
        dump = json.loads(json.dumps(dump_node(node)()))
        assert [each["name"] for each in dump["workloads"]] == ["a"]
        assert dump["workloadState"] == {}
        assert re.fullmatch(r"\d+\.\d+\.\d+", dump["version"]["version"])
        assert dump["version"]["compiled"] == []
        assert dump["config"]["node"] == "n1"
        assert dump["config"]["admin_address"] == "127.0.0.1:0"


def test_the_token_is_not_shown():
    shown = dump_settings(SETTINGS)
    assert SETTINGS.__dataclass_fields__.keys() - shown.keys() == {"auth_token", "xds_headers", "ca_headers"}
    assert SETTINGS.auth_token not in str(shown)


async def test_certificates_are_shown_without_keys_and_with_the_reason_where_there_is_none():
    signer = Signer()
    with built(ControlPlane(Server().session, signer)) as (node, _):
        name = identity("shop/web")
        node.certificates.want(name)
        assert dump_node(node)()["certificates"] == [
            {"identity": str(name), "state": "Initializing", "certChain": [], "rootCerts": []}
        ]
        signer.error = NoCertificate("not now")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.certificates.run)
            while not node.certificates.failed_total:
                await trio.lowlevel.checkpoint()
            assert dump_node(node)()["certificates"][0]["state"] == "Unavailable: not now"
            signer.error = None
            await until(lambda: node.certificates.current(name))
            held = node.certificates.current(name)
            [shown] = dump_node(node)()["certificates"]
            nursery.cancel_scope.cancel()
        assert shown["state"] == "Available"
        assert shown["certChain"][0]["serialNumber"] == str(held.serial)
        [root] = parse_certificates(held.roots_pem)
        assert [one["serialNumber"] for one in shown["rootCerts"]] == [str(root.serial_number)]
        assert shown["rootCerts"][0]["subject"] == root.subject.rfc4514_string()
        for one, part in ((shown["certChain"], held.chain_pem), (shown["rootCerts"], held.roots_pem)):
            assert b64decode(one[0]["pem"]).decode() in part
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one[0]["expirationTime"])
        assert "PRIVATE" not in json.dumps(shown)
        assert "BEGIN" not in json.dumps(shown)


class Open:
    """A connection into a pod."""

    def __init__(self, destination: str, connection: Connection) -> None:
        self.workload_uid, self.connection = destination, connection

    def abort(self, error: ConnectionFailed) -> None: ...


async def test_open_connections_say_who_was_asked_for_and_who_was_found():
    """As ztunnel: `originalDst` is what the application called, `actualDst` where we went for that."""
    app, near = PeerAddress(ip_address("10.0.0.1"), 40000), PeerAddress(ip_address("fd00::1"), 50000)
    called, found = OriginalDestination(ip_address("10.96.0.9"), 80), Endpoint(ip_address("10.0.0.2"), 15008)
    server = Endpoint(ip_address("10.0.0.2"), 8080)
    web, db = workload("web").hbone(), workload("db").hbone()
    with built(served_by(Server())) as (node, _), ExitStack() as ends:
        node.hold.publish(*apply(node.hold.world, [web, db]))
        one, other = (ends.enter_context(each) for each in socket.socketpair())
        for place, opener, asked in ((app, one, called), (near, other, None)):
            call = Call(opener, place, node.outbound.report, node.outbound.calls)
            call.journey = Journey(
                Reporter.SOURCE, found, web, db, hbone_address="10.0.0.2:8080", called=asked
            )
        node.live.register(Open(db.uid, Connection(app, server, web.identity)), web.uid)
        states = {web.uid: {"state": "Up"}, db.uid: {"state": "Up"}}
        shown = dump_proxy(node, states, ())()["workloadState"]
    outbound = {"actualDst": "10.0.0.2:15008", "protocol": "HBONE"}
    assert sorted(shown[web.uid]["connections"]["outbound"], key=str) == [
        {"src": "10.0.0.1:40000", "originalDst": "10.96.0.9:80", **outbound},
        {"src": "[fd00::1]:50000", "originalDst": "10.0.0.2:15008", **outbound},
    ]
    assert shown[web.uid]["connections"]["inbound"] == []
    assert shown[db.uid]["connections"]["inbound"] == [
        {"src": "10.0.0.1:40000", "originalDst": "", "actualDst": "10.0.0.2:8080", "protocol": "HBONE"}
    ]
