"""What is not said about the mesh is as in Istio."""

from ztunnel.control.settings import MeshSettings


def test_defaults_are_those_of_istio():
    assert MeshSettings() == MeshSettings("istio-system", "cluster.local", "Kubernetes", "cluster.local", "")
