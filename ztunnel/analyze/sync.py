"""How far node proxies are with what control planes serve: the answers of `/debug/syncz`, ours or istiod's,
as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ztunnel.analyze.summary import align

TYPES: Final = {
    "WORKLOADS": "type.googleapis.com/istio.workload.Address",
    "POLICIES": "type.googleapis.com/istio.security.Authorization",
}
COLUMNS: Final = ("PROXY", "NODE", "CLUSTER", "CONTROL PLANE", *TYPES, "VERSION")
SYNCED, STALE, NOT_SENT, ABSENT = "SYNCED", "STALE", "NOT SENT", "NOT CONNECTED"
_PROXY_TYPE: Final = "ztunnel"


@dataclass(frozen=True, slots=True)
class ProxySync:
    """One node proxy, `pod.namespace`. `states` and `errors` are by the names in `TYPES`; of one that is
    connected to no control plane the states are NOT CONNECTED."""

    proxy: str
    node: str
    cluster: str
    control: str
    version: str
    states: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether it has taken over all that is served."""
        return all(state == SYNCED for state in self.states.values())


def read_sync(control: str, answer: object) -> list[ProxySync]:
    """The node proxies that one control plane names; of a proxy with several streams the newest counts.

    Raises:
        ValueError: it is no answer of `/debug/syncz`.
    """
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise ValueError("no list of proxies")
    newest: dict[str, Mapping[str, Any]] = {}
    for one in sorted(answer, key=lambda one: str(one.get("connected", ""))):
        if one.get("proxy_type", _PROXY_TYPE) in ("", _PROXY_TYPE):
            newest[str(one.get("proxy", ""))] = one
    return [_read(control, one) for _, one in sorted(newest.items())]


def _read(control: str, one: Mapping[str, Any]) -> ProxySync:
    resources = one.get("resources")
    found = {name: _mapping(_mapping(resources).get(url)) for name, url in TYPES.items()}
    return ProxySync(
        str(one.get("proxy", "")),
        str(one.get("node", "")),
        str(one.get("cluster_id", "")),
        control,
        str(one.get("istio_version") or ""),
        {name: _state(each) for name, each in found.items()},
        {name: str(each["last_error"]) for name, each in found.items() if each.get("last_error")},
    )


def _state(resource: Mapping[str, Any]) -> str:
    """As istioctl has it (istio/istio istioctl/pkg/writer/pilot)."""
    if not resource.get("sent"):
        return NOT_SENT
    return SYNCED if resource["sent"] == resource.get("acked") and not resource.get("pending") else STALE


def join(found: Iterable[ProxySync], pods: Mapping[str, str]) -> list[ProxySync]:
    """All of them, and the node proxies (`pod.namespace` to its node) that no control plane names. A proxy
    that several name is in between two of them: the one with which it is synced counts."""
    by_proxy: dict[str, ProxySync] = {}
    for one in found:
        if one.proxy not in by_proxy or one.good:
            by_proxy[one.proxy] = one
    for proxy, node in pods.items():
        if proxy not in by_proxy:
            by_proxy[proxy] = ProxySync(proxy, node, "", "", "", dict.fromkeys(TYPES, ABSENT))
    return [by_proxy[proxy] for proxy in sorted(by_proxy)]


def as_text(found: Sequence[ProxySync], troubles: Sequence[str] = ()) -> str:
    """A table, and below it what proxies have refused and what could not be asked."""
    rows = [
        (
            one.proxy,
            one.node or "?",
            one.cluster or "?",
            one.control or "none",
            *one.states.values(),
            one.version or "?",
        )
        for one in found
    ]
    remarks = [f"{one.proxy} refused {name}: {text}" for one in found for name, text in one.errors.items()]
    remarks += troubles
    return "\n".join([align([COLUMNS, *rows]), *([""] if remarks else []), *remarks])


def as_values(found: Sequence[ProxySync], troubles: Sequence[str] = ()) -> dict[str, Any]:
    """Plain JSON values."""
    return {
        "proxies": [
            {
                "proxy": one.proxy,
                "node": one.node,
                "cluster": one.cluster,
                "controlPlane": one.control,
                "version": one.version,
                "states": {name.lower(): state for name, state in one.states.items()},
                "errors": {name.lower(): text for name, text in one.errors.items()},
            }
            for one in found
        ],
        "troubles": list(troubles),
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
