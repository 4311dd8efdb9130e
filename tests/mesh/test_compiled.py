"""The proxies of these tests are the shipped ones: the wheel of `.venv`, its hot modules compiled."""

from __future__ import annotations

import json
import os

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh
from tests.test_hatch_build import CHOSEN
from ztunnel.demo.call import get
from ztunnel.demo.command import PROGRAM

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.pod("shop/a", "node-1")
    + "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: shop}\n"
    "spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n---\n"
)

FIX = (
    "These proxies do not run the compiled modules: what is tested is not what is shipped. `make test` "
    f"sees to it; to call pytest by hand: `.ci/install run && export {PROGRAM}=$PWD/.venv/bin/ztunnel`."
)


def test_every_module_that_shall_be_compiled_is(mesh: Mesh) -> None:
    given = os.environ.get(PROGRAM)
    assert given, FIX
    names = {file.removesuffix(".py").replace("/", ".") for file in CHOSEN}
    laboratory = mesh.laboratory
    (pod,) = [one for one in laboratory.cluster().pods if one.name.startswith("wp-")]
    where = laboratory.names.netns(laboratory.names.pod(pod.namespace, pod.name))
    waypoint = set(json.loads(get(where, 15000, "/config_dump")[1])["version"]["compiled"])
    for node in ("node-1", "node-2"):
        version = json.loads(laboratory.node_get(node, "/config_dump"))["version"]
        missing = names - set(version["compiled"]) - waypoint
        assert not missing, f"{sorted(missing)}: {FIX}"
