from __future__ import annotations

import json
import re

import trio
import trio.lowlevel

from tests.builders import identity, workload
from tests.inbound.parts import Signer
from tests.run.parts import SETTINGS, built, served_by, until
from ztunnel.control.serve import Server
from ztunnel.errors import NoCertificate
from ztunnel.identity.chain import parse_certificates
from ztunnel.run.dump import dump_node, dump_settings
from ztunnel.run.follow import ControlPlane
from ztunnel.state.delta import apply


async def test_the_dump_has_the_world_the_pods_the_version_and_the_settings():
    with built(served_by(Server())) as (node, _):
        node.hold.publish(*apply(node.hold.world, [workload("a")]))
        dump = json.loads(json.dumps(dump_node(node)))
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
        assert dump_node(node)["certificates"] == [
            {"identity": str(name), "state": "Initializing", "certChain": [], "caCert": []}
        ]
        signer.error = NoCertificate("not now")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.certificates.run)
            while not node.certificates.failed_total:
                await trio.lowlevel.checkpoint()
            assert dump_node(node)["certificates"][0]["state"] == "Unavailable: not now"
            signer.error = None
            await until(lambda: node.certificates.current(name))
            held = node.certificates.current(name)
            [shown] = dump_node(node)["certificates"]
            nursery.cancel_scope.cancel()
        assert shown["state"] == "Available"
        assert shown["certChain"][0]["serialNumber"] == str(held.serial)
        [root] = parse_certificates(held.roots_pem)
        assert [one["serialNumber"] for one in shown["caCert"]] == [str(root.serial_number)]
        assert shown["caCert"][0]["subject"] == root.subject.rfc4514_string()
        assert "PRIVATE" not in json.dumps(shown)
        assert "BEGIN" not in json.dumps(shown)
