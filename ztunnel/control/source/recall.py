"""Keeps the last good versions of policies that are faulty as they are written now, and which waypoints have
served, over restarts: in a ConfigMap of the control plane's namespace.

Without it a policy of which somebody has made nonsense would be in force until the control plane is
restarted, and then no longer: what it denied would be let through."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from ztunnel.kube.call import APPLY, Api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.resource import CONFIG_MAPS

NAME: Final = "ztunnel-last-good"
MANAGER: Final = "ztunnel-control"
_MOST_BYTES: Final = 900_000
"""A ConfigMap holds at most 1 MiB."""


class LastGood:
    """The ConfigMap.

    Attributes:
        trouble: why it could not be read or written the last time; empty where it could.
        tell: called with the trouble whenever it is another one; nobody at first.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self.tell: Callable[[str], None] = lambda _: None
        self._written: dict[str, str] | None = None
        self.trouble = ""

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self.tell(trouble)

    async def recall(self) -> dict[str, Mapping[str, Any]]:
        """What is kept, by names that `Collection` gives. Nothing where it cannot be read."""
        try:
            found = await self._api.get(CONFIG_MAPS, NAME, self._namespace)
        except ApiFailure as failure:
            self._say("" if failure.code == 404 else str(failure))
            return {}
        self._say("")
        data = found.get("data")
        texts = data if isinstance(data, dict) else {}
        self._written = {name: text for name, text in texts.items() if isinstance(text, str)}
        return {name: value for name, text in self._written.items() if (value := _parse(text)) is not None}

    async def remember(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep these and nothing else; costs no request where they are kept already."""
        texts, size = dict[str, str](), 0
        for name in sorted(values):
            text = json.dumps(values[name], sort_keys=True)
            size += len(name) + len(text)
            if size <= _MOST_BYTES:
                texts[name] = text
        if texts == (self._written or {}):
            return
        meta = {"name": NAME, "namespace": self._namespace}
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": texts}
        request = Request("patch", CONFIG_MAPS, self._namespace, NAME)
        try:
            await self._api.patch(request, made, APPLY, {"fieldManager": MANAGER, "force": "true"})
        except ApiFailure as failure:
            self._say(str(failure))
            return
        self._written = texts
        self._say("")


def _parse(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
