"""Which ConfigMaps with the mesh's roots are due to be written, in which namespace; sans I/O.

Pods mount them to know a control plane by. Their name is `istio-ca-root-cert`, as istiod has it. Where an
istiod runs, that name is its own: then ours is `ztunnel-ca-root-cert`, everywhere. In the namespace of the
control plane that one is always written, too, so that what we bring along can mount one name.

An istiod is known by the ConfigMap in its own namespace or ours: what tenants write in theirs says nothing.
One that something else keeps on writing is left alone for some minutes, and said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

KEY: Final = "root-cert.pem"
SHARED: Final = "istio-ca-root-cert"
OWN: Final = "ztunnel-ca-root-cert"
LABELS: Final = {"app.kubernetes.io/managed-by": "ztunnel-control"}

_LEFT_OUT = frozenset(("kube-system", "kube-public", "kube-node-lease"))  # as istiod, IgnoredNamespaces
_ISTIOD = "pilot-discovery"  # the name that istiod gives itself as a field manager
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----")
_REPAIRS = 5
_REPAIR_SECONDS = 60.0
_PEACE_SECONDS = 600.0
_FIRST_SECONDS, _MOST_SECONDS = 1.0, 60.0


class Due(NamedTuple):
    """One that is to be written: made anew, or patched."""

    namespace: str
    name: str
    exists: bool


@dataclass(slots=True)
class _Map:
    text: str | None
    """The roots in it; None where it has none."""
    istiod: bool


@dataclass(slots=True)
class _Tried:
    failures: int = 0
    at: float = 0.0
    written: list[float] = field(default_factory=list)
    cause: str = ""


class RootMaps:
    """What there is, as informers tell it, and what is to be."""

    def __init__(self, namespace: str, root_namespace: str, adopt: bool = False) -> None:
        """`namespace`: the control plane's. `root_namespace`: the one that an istiod would be in. `adopt`:
        the shared name is ours even where an istiod has written it."""
        self._adopt = adopt
        self._own = namespace
        self._trusted = frozenset((namespace, root_namespace))
        self._namespaces: set[str] = set()
        self._maps: dict[tuple[str, str], _Map] = {}
        self._tried: dict[tuple[str, str], _Tried] = {}
        self.roots = ""

    def put_namespace(self, name: str, value: Mapping[str, Any] | None) -> None:
        """A namespace is there, as it came; None: it is gone."""
        if value is None or (value.get("metadata") or {}).get("deletionTimestamp"):
            self._namespaces.discard(name)
            for key in [key for key in self._tried if key[0] == name]:
                del self._tried[key]
        else:
            self._namespaces.add(name)

    def put_map(self, namespace: str, name: str, value: Mapping[str, Any] | None) -> None:
        """A ConfigMap of one of our names is there, as it came; None: it is gone."""
        if value is None:
            self._maps.pop((namespace, name), None)
            return
        text = (value.get("data") or {}).get(KEY)
        self._maps[namespace, name] = _Map(text if isinstance(text, str) else None, _of_istiod(value))

    @property
    def beside_istiod(self) -> bool:
        """Whether an istiod has the shared name."""
        return not self._adopt and any(
            found is not None and found.istiod
            for found in (self._maps.get((namespace, SHARED)) for namespace in self._trusted)
        )

    @property
    def shares_root(self) -> bool:
        """Whether an istiod's proxies trust one of our roots, as where both have one `cacerts`: then theirs
        and ours can prove to each other who they are."""
        own = _certificates(self.roots)
        found = (self._maps.get((namespace, SHARED)) for namespace in self._trusted)
        theirs = (one.text for one in found if one is not None and one.istiod and one.text)
        return any(own & _certificates(text) for text in theirs)

    def due(self, now: float) -> list[Due]:
        """What is to be written now; nothing while there are no roots."""
        if not self.roots:
            return []
        return [Due(*key, exists=key in self._maps) for key in self._wrong() if self._of(key).at <= now]

    def next_at(self) -> float:
        """When something is due that is not yet; inf for never."""
        return (
            min((self._of(key).at for key in self._wrong()), default=float("inf"))
            if self.roots
            else float("inf")
        )

    def written(self, one: Due, now: float) -> bool:
        """It was written. False where something else writes it again and again: it is left alone now."""
        tried = self._tried.setdefault((one.namespace, one.name), _Tried())
        tried.failures, tried.cause, tried.at = 0, "", now + _FIRST_SECONDS
        tried.written = [at for at in tried.written if now - at < _REPAIR_SECONDS] + [now]
        if len(tried.written) <= _REPAIRS:
            return True
        tried.written.clear()
        tried.at = now + _PEACE_SECONDS
        return False

    def failed(self, one: Due, cause: str, now: float) -> bool:
        """It could not be written; whether that is news."""
        tried = self._tried.setdefault((one.namespace, one.name), _Tried())
        tried.failures += 1
        tried.at = now + min(_FIRST_SECONDS * 2.0 ** min(tried.failures - 1, 10), _MOST_SECONDS)
        news, tried.cause = tried.cause != cause, cause
        return news

    @property
    def missing(self) -> int:
        """How many are not as they are to be."""
        return len(self._wrong()) if self.roots else 0

    def _wrong(self) -> list[tuple[str, str]]:
        name = OWN if self.beside_istiod else SHARED
        wanted = {(namespace, name) for namespace in self._namespaces - _LEFT_OUT}
        if self._own in self._namespaces:  # the cluster's own, where the mesh is installed there
            wanted.add((self._own, OWN))
        found = ((key, self._maps.get(key)) for key in sorted(wanted))
        return [key for key, one in found if one is None or one.text != self.roots]

    def _of(self, key: tuple[str, str]) -> _Tried:
        return self._tried.get(key) or _Tried()


def map_value(one: Due, roots: str) -> dict[str, Any]:
    """The ConfigMap, or what of it is to be patched."""
    meta: dict[str, Any] = {"labels": dict(LABELS)}
    if one.exists:
        return {"metadata": meta, "data": {KEY: roots}}
    meta |= {"name": one.name, "namespace": one.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {KEY: roots}}


def _certificates(text: str) -> set[str]:
    """What stands in PEM, without how it is broken into lines."""
    return {"".join(each.split()) for each in _PEM.findall(text)}


def _of_istiod(value: Mapping[str, Any]) -> bool:
    fields = (value.get("metadata") or {}).get("managedFields") or ()
    return any(isinstance(one, Mapping) and str(one.get("manager", "")).startswith(_ISTIOD) for one in fields)
