"""Reads a mesh from files: those of a cluster with its addresses, or a repository's, completed as a cluster
would; or from a cluster itself.

Objects that have been in a cluster (`kubectl get ... -o yaml`, the folder of a node proxy) know their nodes
and addresses. Those of a repository do not; they get what a laboratory would give them, so that a call
between two Deployments can be explained before either runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Final

from ztunnel.analyze.forward import NoCluster, kubectl
from ztunnel.analyze.mesh import Mesh, Written
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import translate
from ztunnel.demo.load import Given, read_given, sort_out
from ztunnel.demo.manifest import Manifest, parse_some, render
from ztunnel.demo.schedule import complete
from ztunnel.errors import ConfigError, Fault
from ztunnel.state.delta import apply
from ztunnel.state.world import World

KINDS: Final = (
    "namespaces", "nodes", "pods", "services", "endpointslices", "deployments", "statefulsets", "daemonsets",
    "networkpolicies", "authorizationpolicies.security.istio.io", "peerauthentications.security.istio.io",
    "requestauthentications.security.istio.io", "serviceentries.networking.istio.io",
    "workloadentries.networking.istio.io", "envoyfilters.networking.istio.io",
    "sidecars.networking.istio.io", "wasmplugins.extensions.istio.io", "gateways.gateway.networking.k8s.io",
    "gatewayclasses.gateway.networking.k8s.io", "referencegrants.gateway.networking.k8s.io",
    "httproutes.gateway.networking.k8s.io", "grpcroutes.gateway.networking.k8s.io",
    "tcproutes.gateway.networking.k8s.io", "tlsroutes.gateway.networking.k8s.io",
    "virtualservices.networking.istio.io", "destinationrules.networking.istio.io",
)  # fmt: skip
"""What is asked of a cluster: what the mesh is made of, and what is told of it."""

_NO_SUCH_KIND: Final = "the server doesn't have a resource type"


def load_mesh(sources: Sequence[Path], settings: MeshSettings) -> Mesh:
    """The mesh of files, directories or `-`; what is wrong in one file costs only that file.

    Raises:
        ConfigError: nothing at all could be read.
    """
    return _mesh(read_given(sources), settings)


def load_cluster(settings: MeshSettings) -> Mesh:
    """The mesh of the cluster that kubectl reaches, as it is now; kinds that it does not have are left out.

    Raises:
        NoCluster: it cannot be asked, or does not allow it. ConfigError: it says nothing that can be read.
    """
    manifests: list[Manifest] = []
    faults: list[Fault] = []
    for kind in KINDS:
        try:
            text = kubectl(["get", kind, "-A", "-o", "json"])
        except NoCluster as error:
            if _NO_SUCH_KIND in str(error):
                continue
            raise
        found, wrong = _listed(text, kind)
        manifests += (replace(one, file="", line=0) for one in found)
        faults += wrong
    found, wrong = _mesh_config(settings)
    manifests += (replace(one, file="", line=0) for one in found)
    faults += wrong
    return _mesh(Given(tuple(manifests), (), tuple(faults)), settings)


def _mesh_config(settings: MeshSettings) -> tuple[list[Manifest], list[Fault]]:
    """The ConfigMap that counts, and no other: they are many, and not everybody may read them."""
    namespace, _, name = settings.mesh_config.partition("/")
    only = f"--field-selector=metadata.name={name}"
    try:
        return _listed(kubectl(["get", "configmaps", "-n", namespace, only, "-o", "json"]), "configmaps")
    except NoCluster as error:
        why = f"cannot be read, so nobody's providers are known here: {error}"
        return [], [Fault("", 0, f"ConfigMap {settings.mesh_config}", why)]


def _listed(text: str, kind: str) -> tuple[list[Manifest], list[Fault]]:
    """The objects of a list in JSON; what is wrong with one costs only that one, and names it."""
    try:
        return list(parse_some(text, kind)[0]), []
    except ConfigError as error:
        faults = list(error.faults)
    try:
        items = json.loads(text)["items"]
        named = [(f"{one['kind']} {_full_name(one['metadata'])}", json.dumps(one)) for one in items]
    except (ValueError, KeyError, TypeError):
        return [], faults
    manifests: list[Manifest] = []
    faults.clear()
    for name, one in named:
        try:
            manifests += parse_some(one, kind)[0]
        except ConfigError as error:
            faults += (Fault("", 0, f"{name}: {each.field}", each.message) for each in error.faults)
    return manifests, faults


def _full_name(meta: Mapping[str, str]) -> str:
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]


def _mesh(given: Given, settings: MeshSettings) -> Mesh:
    if given.faults and not given.manifests:
        raise ConfigError(*given.faults)
    manifests, faults = _completed(given.manifests)
    inventory = gather({one.key.file_name: render(one) for one in manifests}, Inventory())
    translation = translate(inventory, settings)
    http = (one for held in translation.http.values() for one in held.values())
    resources = chain(
        translation.addresses.values(), translation.policies.values(), translation.routes.values(), http
    )
    world, _ = apply(World(settings.network), resources)
    written = tuple(sorted(_written(one) for one in given.manifests))
    found = tuple(sorted({*given.faults, *faults, *inventory.faults}))
    return Mesh(
        written,
        inventory,
        world,
        settings,
        found,
        translation.warnings,
        translation.routes,
        translation.problems,
    )


def _completed(given: Iterable[Manifest]) -> tuple[tuple[Manifest, ...], tuple[Fault, ...]]:
    """What a control plane would see: the objects as they are where a cluster has completed them."""
    given = tuple(given)
    if any(one.key.kind == "Pod" and _has_address(one) for one in given):
        return given, ()
    numbers = count(1)
    try:
        completed = complete({}, sort_out(given).manifests, lambda: f"pod-{next(numbers)}")
    except ConfigError as error:
        return given, error.faults
    return tuple(completed.values()), ()


def _has_address(pod: Manifest) -> bool:
    status = pod.body.get("status")
    return isinstance(status, dict) and bool(status.get("podIPs") or status.get("podIP"))


def _written(one: Manifest) -> Written:
    key = one.key
    return Written(key.group, key.kind, key.namespace, key.name, one.file, one.line, one.body)
