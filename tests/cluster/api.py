"""The API server of a cluster without a kubectl for each question: that takes a third of a second of a core,
of which the tests ask for thousands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import httpx2
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig

Object = dict[str, Any]

KINDS: Final = {
    "configmap": ("v1", "configmaps"),
    "daemonset": ("apps/v1", "daemonsets"),
    "deployment": ("apps/v1", "deployments"),
    "deployments": ("apps/v1", "deployments"),
    "endpointslices": ("discovery.k8s.io/v1", "endpointslices"),
    "gateway": ("gateway.networking.k8s.io/v1", "gateways"),
    "namespace": ("v1", "namespaces"),
    "node": ("v1", "nodes"),
    "nodes": ("v1", "nodes"),
    "peerauthentication": ("security.istio.io/v1", "peerauthentications"),
    "pod": ("v1", "pods"),
    "pods": ("v1", "pods"),
    "service": ("v1", "services"),
    "services": ("v1", "services"),
    "serviceentry": ("networking.istio.io/v1", "serviceentries"),
    "authorizationpolicy": ("security.istio.io/v1", "authorizationpolicies"),
    "authorizationpolicy.security.istio.io": ("security.istio.io/v1", "authorizationpolicies"),
    "clusterrole": ("rbac.authorization.k8s.io/v1", "clusterroles"),
    "destinationrule": ("networking.istio.io/v1", "destinationrules"),
    "httproute": ("gateway.networking.k8s.io/v1", "httproutes"),
    "job": ("batch/v1", "jobs"),
    "ratelimitpolicy": ("ztunnel.io/v1alpha1", "ratelimitpolicies"),
    "requestauthentication": ("security.istio.io/v1", "requestauthentications"),
    "telemetry": ("telemetry.istio.io/v1", "telemetries"),
    "virtualservice": ("networking.istio.io/v1", "virtualservices"),
}
"""What tests ask for by these words; for others there is kubectl."""
_OF_THE_CLUSTER: Final = ("namespaces", "nodes", "clusterroles")
_FORCED: Final = {"fieldManager": "kubectl", "force": "true"}
_TRIES: Final = 3


class ApiError(Exception):
    """What the server refuses, or that it does not answer."""


class Api:
    """That of a kubeconfig."""

    def __init__(self, config: Path) -> None:
        found = KubeConfig.from_file(config).get()
        assert found is not None
        self._client = Client(found, ConnectionParams(timeout=httpx2.Timeout(30.0)))
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    def close(self) -> None:
        self._client.close()

    def text(self, path: str, **params: str) -> str:
        """What a GET is answered with. Raises ApiError."""
        return self._ask("GET", path, params).text

    def get(self, kind: str, name: str = "", namespace: str = "", selector: str = "") -> Object:
        """One object or a list, of a kind in KINDS; without a namespace, of `default` as kubectl does."""
        params = {"labelSelector": selector} if selector else {}
        found: Object = self._ask("GET", _path(kind, name, namespace), params).json()
        return found

    def patch(self, kind: str, name: str, change: Object, namespace: str = "") -> None:
        """By a merge patch. Raises ApiError."""
        headers = {"Content-Type": "application/merge-patch+json"}
        self._ask("PATCH", _path(kind, name, namespace), {}, json.dumps(change), headers)

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """What may not be there; not waited for. Raises ApiError."""
        self._ask("DELETE", _path(kind, name, namespace), {}, absent_is_good=True)

    def apply(self, value: Object) -> None:
        """Server-side, taking over what somebody else has set. Raises ApiError."""
        plural, namespaced = self._resource(value["apiVersion"], value["kind"])
        meta = value["metadata"]
        inside = f"/namespaces/{meta.get('namespace', 'default')}" if namespaced else ""
        path = f"{_root(value['apiVersion'])}{inside}/{plural}/{meta['name']}"
        headers = {"Content-Type": "application/apply-patch+yaml"}
        self._ask("PATCH", path, _FORCED, json.dumps(value), headers)

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        """Its plural, and whether it lives in a namespace."""
        if kind not in self._resources.get(version, ()):
            listed = self._ask("GET", _root(version), {}).json()["resources"]
            self._resources[version] = {
                each["kind"]: (each["name"], each["namespaced"]) for each in listed if "/" not in each["name"]
            }
        found = self._resources[version].get(kind)
        if found is None:
            raise ApiError(f"the cluster has no {kind} of {version}")
        return found

    def _ask(
        self,
        method: str,
        path: str,
        params: dict[str, str],
        content: str | None = None,
        headers: dict[str, str] | None = None,
        absent_is_good: bool = False,
    ) -> httpx2.Response:
        for attempt in range(_TRIES):
            try:
                answer = self._client.request(method, path, params=params, content=content, headers=headers)
                break
            except (httpx2.HTTPError, OSError) as error:
                if attempt + 1 == _TRIES:
                    raise ApiError(f"{method} {path}: {type(error).__name__} {error}") from error
        if not answer.is_success and not (absent_is_good and answer.status_code == 404):
            raise ApiError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer


def _path(kind: str, name: str, namespace: str) -> str:
    version, plural = KINDS[kind]
    inside = "" if plural in _OF_THE_CLUSTER else f"/namespaces/{namespace or 'default'}"
    return "/".join(part for part in (f"{_root(version)}{inside}/{plural}", name) if part)


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
