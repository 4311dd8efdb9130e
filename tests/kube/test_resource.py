"""Paths of the API, as `kubectl get --raw` takes them."""

import pytest

from ztunnel.kube.resource import ENDPOINT_SLICES, NODES, PODS


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PODS.path(), "/api/v1/pods"),
        (PODS.path("shop", "a"), "/api/v1/namespaces/shop/pods/a"),
        (PODS.path("shop", "a", "status"), "/api/v1/namespaces/shop/pods/a/status"),
        (NODES.path("shop", "n1"), "/api/v1/nodes/n1"),
        (ENDPOINT_SLICES.path("shop"), "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"),
    ],
)
def test_a_path_names_group_namespace_and_object(path, expected):
    assert path == expected


def test_a_resource_prints_as_rbac_names_it():
    assert [str(PODS), str(ENDPOINT_SLICES)] == ["pods", "endpointslices.discovery.k8s.io"]
    assert [PODS.api_version, ENDPOINT_SLICES.api_version] == ["v1", "discovery.k8s.io/v1"]
