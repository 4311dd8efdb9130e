"""All objects of a folder, gathered from its files; what did not change is neither parsed again nor made
anew.

Every file is cut into documents, and what a document's text was read as is kept for as long as the text
stands in some file. Objects that read equal to those before are those before, so that the translation can
tell at a glance what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final, TypeVar

from ztunnel.errors import ConfigError, Fault
from ztunnel.state import istio, kube
from ztunnel.state.manifest import Field, Notes, TooLarge, compose, cut

Object = (
    kube.Namespace
    | kube.Node
    | kube.ServiceAccount
    | kube.Pod
    | kube.Service
    | kube.EndpointSlice
    | istio.AuthorizationPolicy
    | istio.PeerAuthentication
)
T = TypeVar("T", bound=Object)
Key = tuple[str, str, str]
"""Kind, namespace (empty for Node and Namespace), name."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind is read: its served versions, its top-level fields beyond the usual, its reader."""

    versions: tuple[str, ...]
    fields: tuple[str, ...]
    read: Callable[[Field], Object]


KINDS: Final[Mapping[tuple[str, str], Kind]] = {
    ("", "Namespace"): Kind(("v1",), ("spec", "status"), kube.read_namespace),
    ("", "Node"): Kind(("v1",), ("spec", "status"), kube.read_node),
    ("", "Pod"): Kind(("v1",), ("spec", "status"), kube.read_pod),
    ("", "Service"): Kind(("v1",), ("spec", "status"), kube.read_service),
    ("", "ServiceAccount"): Kind(
        ("v1",), ("automountServiceAccountToken", "imagePullSecrets", "secrets"), kube.read_service_account
    ),
    ("discovery.k8s.io", "EndpointSlice"): Kind(
        ("v1",), ("addressType", "endpoints", "ports"), kube.read_endpoint_slice
    ),
    ("security.istio.io", "AuthorizationPolicy"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), istio.read_authorization_policy
    ),
    ("security.istio.io", "PeerAuthentication"): Kind(
        ("v1", "v1beta1"), ("spec", "status"), istio.read_peer_authentication
    ),
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one document's text holds: objects with their lines, faults, kinds that are not ours
    (`group/Kind`)."""

    objects: tuple[tuple[int, Object], ...] = ()
    faults: tuple[Fault, ...] = ()
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every object by its key, and the unread kinds; `parsed`, by digests of texts, is for the next
    gathering."""

    objects: Mapping[Key, Object] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    parsed: Mapping[bytes, Parsed] = field(default_factory=dict)


def key_of(found: Object) -> Key:
    """The key under which an object stands."""
    return type(found).__name__, found.meta.namespace, found.meta.name


def gather(files: Mapping[str, str | Fault], before: Inventory) -> Inventory:
    """The objects of `files` (name to text, or to the fault that kept it from being read).

    Raises:
        ConfigError: with the faults of all files, the same object in two places included.
    """
    faults = [fault for fault in files.values() if isinstance(fault, Fault)]
    objects: dict[Key, Object] = {}
    places: dict[Key, tuple[str, int]] = {}
    parsed: dict[bytes, Parsed] = {}
    for name in sorted(files):
        text = files[name]
        for chunk in cut(text) if isinstance(text, str) else ():
            digest = blake2b(chunk.text.encode(errors="surrogatepass"), digest_size=16).digest()
            found = parsed.get(digest) or before.parsed.get(digest) or parse(chunk.text)
            parsed[digest] = found
            faults += [replace(fault, file=name, line=fault.line + chunk.line - 1) for fault in found.faults]
            for line, fresh in found.objects:
                key, place = key_of(fresh), (name, line + chunk.line - 1)
                if key in objects:
                    faults.append(_twice(key, place, places[key]))
                old = before.objects.get(key)
                objects[key] = old if old is not None and old == fresh else fresh
                places[key] = place
    if faults:
        raise ConfigError(*sorted(set(faults)))
    return Inventory(objects, frozenset().union(*(found.unknown for found in parsed.values())), parsed)


def parse(text: str) -> Parsed:
    """Read one document. Lines are counted from its first one."""
    notes = Notes()
    objects: list[tuple[int, Object]] = []
    unknown: set[str] = set()
    try:
        root = compose(text, notes)
        if root is not None:
            _read(root, None, objects, unknown)
    except TooLarge:
        notes.add(1, "", "the document is too large, or its aliases repeat each other too often")
    if notes.faults:
        objects.clear()
    return Parsed(tuple(objects), tuple(notes.faults), frozenset(unknown))


def _read(root: Field, inherited: str | None, objects: list[tuple[int, Object]], unknown: set[str]) -> None:
    """Read one object, or each of a list; `inherited` is None outside a list, and in a typed one the
    `version/Kind` that its items may leave out."""
    if not root.is_mapping():
        return
    version, name = root.text("apiVersion"), root.text("kind")
    if inherited and not version and not name:
        version, _, name = inherited.rpartition("/")
    if not version or not name:
        root.fault("apiVersion and kind are needed")
        return
    group, _, number = version.rpartition("/")
    kind = KINDS.get((group, name))
    if kind is None and inherited is None and name.endswith("List"):
        for item in root.each("items"):
            _read(item, f"{version}/{name.removesuffix('List')}" if name != "List" else "", objects, unknown)
    elif kind is None:
        unknown.add(f"{group}/{name}" if group else name)
    elif number not in kind.versions:
        root.fault(
            f"{name} is read in the versions {', '.join(kind.versions)} of {group or 'the core group'}"
        )
    else:
        root.only(("apiVersion", "kind", "metadata", *kind.fields))
        objects.append((root.line, kind.read(root)))


def _twice(key: Key, place: tuple[str, int], first: tuple[str, int]) -> Fault:
    kind, namespace, name = key
    who = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
    return Fault(*place, "metadata.name", f"{who} stands in {first[0]}:{first[1]} as well")


def of_kind(objects: Iterable[Object], kind: type[T]) -> list[T]:
    """The objects of one kind, in order."""
    return [found for found in objects if isinstance(found, kind)]
