"""A control plane in the process that it is for; and that none is imported where there is one elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from ztunnel.ca.authority import NodeCertificates, OwnCertificates
from ztunnel.cli._embedded import node_plane, waypoint_plane
from ztunnel.config import Settings, read_settings
from ztunnel.control.fetch import NetworkCertificates
from ztunnel.run.reporting import Reporting


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "world").mkdir()
    (tmp_path / "world/nodes.yaml").write_text("{apiVersion: v1, kind: Node, metadata: {name: n1}}")
    flags = {"node": "n1", "manifests": str(tmp_path / "world"), "state_dir": str(tmp_path / "state")}
    return read_settings(flags, {})


@pytest.mark.parametrize(
    ("plane", "signer"), [(node_plane, NodeCertificates), (waypoint_plane, OwnCertificates)]
)
async def test_a_folder_is_served_and_certificates_are_signed_here(
    settings: Settings, plane, signer: type
) -> None:
    async with trio.open_nursery() as nursery:
        made = await plane(nursery, settings, Reporting(settings))
        assert isinstance(made.certificates, signer)
        assert made.dump()
        async with made.open_session():
            pass
        nursery.cancel_scope.cancel()


async def test_who_signs_may_be_elsewhere(settings: Settings, tmp_path: Path) -> None:
    flags = {"node": "n1", "manifests": str(settings.manifests), "ca_address": "https://127.0.0.1:15012"}
    elsewhere = read_settings({**flags, "state_dir": str(tmp_path / "other")}, {})
    async with trio.open_nursery() as nursery:
        made = await node_plane(nursery, elsewhere, Reporting(elsewhere))
        assert isinstance(made.certificates, NetworkCertificates)
        nursery.cancel_scope.cancel()
    assert not (tmp_path / "other/ca").exists()


def test_a_node_proxy_imports_what_it_uses_only() -> None:
    """No control plane, no client of Kubernetes, nothing of a waypoint: each is megabytes of every node."""
    unwanted = [
        "ztunnel.control.source.watch",
        "ztunnel.control.keys.fetch_keys",
        "ztunnel.control.serve",
        "ztunnel.explain.explanation",
        "lightkube",
        "httpx2",
        "pyroute2.iproute",
        "pyroute2.netlink.nlsocket",
        "asyncio",
        "multiprocessing",
        "http.server",
        "urllib.request",
        "wsgiref",
        "yaml",
        "re2",
        "difflib",
        "rich",
        "ztunnel.l7",
        "ztunnel.waypoint",
        "ztunnel.xds.http_resource",
        "ztunnel.zds",
    ]
    code = f"import sys, ztunnel.cli.node; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
