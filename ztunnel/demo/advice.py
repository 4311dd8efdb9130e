"""What the node proxies will say of objects that they accept: what is not enforced, or means something else.

They write it to their logs; whoever applies an object reads it here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import translate
from ztunnel.demo.assign import Objects, of_kind
from ztunnel.demo.manifest import render
from ztunnel.demo.workloads import is_workload

_POLICIES = ("AuthorizationPolicy", "PeerAuthentication")


def advice(objects: Objects) -> tuple[str, ...]:
    """One line for each thing to know, about these objects together."""
    settings = MeshSettings()
    texts = {key.file_name: render(one) for key, one in objects.items() if not is_workload(key)}
    found = translate(gather(texts, Inventory()), settings)
    return (*found.warnings, *_without_pods(objects, settings))


def _without_pods(objects: Objects, settings: MeshSettings) -> Iterator[str]:
    """A selector that selects nobody is mostly a slip."""
    pods = [
        (pod.key.namespace, pod.pull("metadata.labels", dict, {}).items()) for pod in of_kind(objects, "Pod")
    ]
    for key, policy in objects.items():
        wanted = policy.pull("spec.selector.matchLabels", dict, {}).items() if key.kind in _POLICIES else ()
        anywhere = key.namespace == settings.root_namespace
        if wanted and not any(wanted <= labels and (anywhere or key.namespace == ns) for ns, labels in pods):
            yield f"{key}: its selector selects no pod"
