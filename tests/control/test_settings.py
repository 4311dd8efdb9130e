"""What is not said about the mesh is as in Istio."""

from pathlib import Path

import pytest

from ztunnel.config import Settings
from ztunnel.control.settings import MeshSettings, mesh_settings


def test_defaults_are_those_of_istio():
    assert MeshSettings() == MeshSettings("istio-system", "cluster.local", "Kubernetes", "cluster.local", "")


def test_they_are_taken_from_the_settings_of_a_process():
    settings = Settings(
        root_namespace="root", trust_domain="td", cluster="c", cluster_domain="d", network="n"
    )
    assert mesh_settings(settings) == MeshSettings("root", "td", "c", "d", "n", ())


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (Settings(), "ztunnel-system/ztunnel-mesh"),
        (Settings(pod_namespace="mine"), "mine/ztunnel-mesh"),
        (Settings(pod_namespace="shop", manifests=Path("/x")), "ztunnel-system/ztunnel-mesh"),
        (Settings(mesh_config_map="istio-system/istio"), "istio-system/istio"),
        (Settings(mesh_config_map="a/b", manifests=Path("/x")), "a/b"),
    ],
)
def test_the_mesh_config_is_beside_the_control_plane_unless_it_is_said(settings, found):
    assert mesh_settings(settings).mesh_config == found
