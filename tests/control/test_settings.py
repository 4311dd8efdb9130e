"""What is not said about the mesh is as in Istio."""

from ztunnel.config import Settings
from ztunnel.control.settings import MeshSettings, mesh_settings


def test_defaults_are_those_of_istio():
    assert MeshSettings() == MeshSettings("istio-system", "cluster.local", "Kubernetes", "cluster.local", "")


def test_they_are_taken_from_the_settings_of_a_process():
    settings = Settings(
        root_namespace="root", trust_domain="td", cluster="c", cluster_domain="d", network="n"
    )
    assert mesh_settings(settings) == MeshSettings("root", "td", "c", "d", "n", ())
