"""Pages of a control plane for whoever operates it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Final

import trio

from ztunnel.control.serve import Server
from ztunnel.control.sync_status import dump
from ztunnel.pages.message import JSON, LOOPBACK_HOSTS, Request, Response, Route, may_ask, text

SYNC: Final = "/debug/syncz"

_FORBIDDEN: Final = "this page is for programs on the loopback of this pod: use kubectl port-forward\n"


def sync_page(server: Server, wall: Callable[[], datetime]) -> Route:
    """`/debug/syncz`, `?namespace=` for proxies of one namespace. It names nodes and proxies and quotes what
    they say, so it is for whoever may reach the pod's loopback: `kubectl port-forward`, by the API server's
    leave."""

    async def answer(request: Request) -> Response:
        if not request.local or not may_ask(request, LOOPBACK_HOSTS):
            return text(403, _FORBIDDEN)
        found = dump(server.subscribers, trio.current_time(), wall())
        if namespace := request.query.get("namespace"):
            found = [one for one in found if str(one["proxy"]).endswith(f".{namespace}")]
        return Response(200, json.dumps(found, indent=2).encode(), JSON)

    return Route(("GET",), answer)
