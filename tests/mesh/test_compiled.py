"""The node proxies of these tests are the shipped ones: the wheel of `.venv`, its hot modules compiled."""

from __future__ import annotations

import json
import os

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh
from tests.test_hatch_build import CHOSEN
from ztunnel.demo.command import PROGRAM

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = lab.NODES + lab.namespace("shop") + lab.pod("shop/a", "node-1")

FIX = (
    "These node proxies do not run the compiled modules: what is tested is not what is shipped. `make test` "
    f"sees to it; to call pytest by hand: `.ci/install run && export {PROGRAM}=$PWD/.venv/bin/ztunnel`."
)


def test_every_module_that_shall_be_compiled_is(mesh: Mesh) -> None:
    given = os.environ.get(PROGRAM)
    assert given, FIX
    names = {file.removesuffix(".py").replace("/", ".") for file in CHOSEN}
    for node in ("node-1", "node-2"):
        version = json.loads(mesh.laboratory.node_get(node, "/config_dump"))["version"]
        assert not names - set(version["compiled"]), FIX
        [started] = [
            line for line in mesh.laboratory.node_log(node).splitlines() if "\tztunnel\tstarting\t" in line
        ]
        assert 'compiled="true"' in started
