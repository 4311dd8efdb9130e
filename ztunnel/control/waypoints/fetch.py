"""Fetches what is wanted otherwise of the objects of Gateways: by a ConfigMap of the control plane's
namespace for all of a class (label `gateway.istio.io/defaults-for-class`, as Istio has it), and by the one
that a Gateway names, which is laid over that.

They are asked for, and looked at again every ten seconds: to be told of changes takes the right to follow all
of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import trio

from ztunnel.control.services.endpoint import Name
from ztunnel.control.waypoints.overlay import BadOverlay, Value, read_overlays
from ztunnel.kube.call import Api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import CONFIG_MAPS
from ztunnel.state.gateway import Gateway

DEFAULTS_FOR: Final = "gateway.istio.io/defaults-for-class"
"""The label of such a ConfigMap; its value is the class."""
SECONDS: Final = 10.0
"""Between two looks."""
_KEPT_SECONDS: Final = 1.0
"""What a class has is asked for once for all of its Gateways."""

_ABSENT: Final[Mapping[str, Any]] = {}
_Found = tuple[str, Mapping[str, Any]]
"""What a ConfigMap is called, with its version, and its data."""


class Parameters:
    """Those of all Gateways, as they were fetched last."""

    def __init__(self, api: Api, namespace: str) -> None:
        """`namespace` is that of the control plane; empty: there are no defaults."""
        self._api = api
        self._namespace = namespace
        self._seen: dict[Name, tuple[str, ...]] = {}
        self._of_class: dict[str, tuple[float, _Found | None]] = {}

    def forget(self, gateway: Name) -> None:
        """It is gone."""
        self._seen.pop(gateway, None)

    async def overlays(self, name: Name, gateway: Gateway) -> tuple[Mapping[str, Value], ...]:
        """What is wanted otherwise for a Gateway, in the order in which it is laid over.

        Raises:
            ApiFailure.
            BadOverlay: a ConfigMap is not there, or makes no sense.
        """
        found = await self._fetch(gateway)
        self._seen[name] = tuple(mark for mark, _ in found)
        return tuple(_read(*one) for one in found)

    async def changed(self, name: Name, gateway: Gateway) -> bool:
        """Whether something else is there than when the Gateway was seen to last. Where it cannot be asked
        now, that is not known."""
        seen = self._seen.get(name)
        if seen is None:
            return False
        with suppress(ApiFailure):
            return tuple([mark for mark, _ in await self._fetch(gateway)]) != seen
        return False

    async def _fetch(self, gateway: Gateway) -> list[_Found]:
        found = [await self._defaults(gateway.class_name), await self._own(gateway)]
        return [one for one in found if one is not None]

    async def _defaults(self, of_class: str) -> _Found | None:
        """Of its class; of several ConfigMaps the first by name."""
        if not self._namespace:
            return None
        kept = self._of_class.get(of_class)
        if kept is None or trio.current_time() - kept[0] >= _KEPT_SECONDS:
            kept = self._of_class[of_class] = trio.current_time(), await self._fetch_defaults(of_class)
        return kept[1]

    async def _fetch_defaults(self, of_class: str) -> _Found | None:
        selector = {"labelSelector": f"{DEFAULTS_FOR}={of_class}"}
        found = await self._api.list(CONFIG_MAPS, self._namespace, selector)
        items = sorted(found.get("items") or (), key=lambda one: str(one["metadata"]["name"]))
        return _found(self._namespace, items[0]) if items else None

    async def _own(self, gateway: Gateway) -> _Found | None:
        named = gateway.infrastructure.parameters
        if not named:
            return None
        called, namespace = named.partition(" ")[2], gateway.meta.namespace
        try:
            return _found(namespace, await self._api.get(CONFIG_MAPS, called, namespace))
        except ApiFailure as failure:
            if failure.code != 404:
                raise
        return f"ConfigMap {namespace}/{called}", _ABSENT


def _found(namespace: str, value: Mapping[str, Any]) -> _Found:
    meta, data = value["metadata"], value.get("data")
    where = f"ConfigMap {namespace}/{meta['name']}"
    return f"{where} {meta.get('resourceVersion')}", dict(data) if isinstance(data, dict) else {}


def _read(mark: str, data: Mapping[str, Any]) -> Mapping[str, Value]:
    where = " ".join(mark.split(" ")[:2])
    if data is _ABSENT:
        raise BadOverlay(f"{where} is not there")
    try:
        return read_overlays(data)
    except BadOverlay as error:
        raise BadOverlay(f"{where}: {error}") from error
