"""Requests to the Kubernetes API. Objects are plain values, as JSON has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx2

from ztunnel.kube.failure import ApiFailure, Request, refused, unanswered
from ztunnel.kube.resource import Resource

Value = dict[str, Any]

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"

_METHODS = {
    "get": "GET", "list": "GET", "watch": "GET", "create": "POST", "update": "PUT", "patch": "PATCH",
    "delete": "DELETE",
}  # fmt: skip
_JSON = "application/json"
_METADATA = "application/json;as={kind};g=meta.k8s.io;v=v1"
_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
_MOST_BODY = 64 * 1024


class Api:
    """One API server. Every call raises ApiFailure where the server refuses or does not answer in time."""

    def __init__(self, client: httpx2.AsyncClient, server: str) -> None:
        """`client` has the server as its base URL, its trust and our credentials. It stays its owner's."""
        self._client = client
        self.server = server

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Value:
        """One object."""
        return await self.ask(Request("get", resource, namespace, name))

    async def list(
        self, resource: Resource, namespace: str = "", params: Mapping[str, str] | None = None
    ) -> Value:
        """A list as it comes: `items`, and `metadata` with `resourceVersion` and `continue`."""
        return await self.ask(Request("list", resource, namespace), params=params)

    async def create(
        self, resource: Resource, value: Mapping[str, Any], namespace: str = "", below: str = ""
    ) -> Value:
        """A new object; for reviews (TokenReview, ...) the answer. `below` names a subresource, whose
        object's name is in `value`."""
        name = str((value.get("metadata") or {}).get("name", "")) if below else ""
        return await self.ask(Request("create", resource, namespace, name, below), value)

    async def update(self, resource: Resource, value: Mapping[str, Any], below: str = "") -> Value:
        """Replace an object; 409 where it is no longer the version that `value` was made from."""
        meta = value["metadata"]
        request = Request("update", resource, meta.get("namespace", ""), meta["name"], below)
        return await self.ask(request, value)

    async def patch(
        self, request: Request, value: Any, content_type: str = MERGE, params: Mapping[str, str] | None = None
    ) -> Value:
        """Patch the object that `request` (of the verb `patch`) names. With APPLY, `params` has
        `fieldManager` and, to take over fields of others, `force`."""
        return await self.ask(request, value, content_type, params)

    async def delete(self, resource: Resource, name: str, namespace: str = "") -> Value:
        """Delete one object."""
        return await self.ask(Request("delete", resource, namespace, name))

    async def ask(
        self,
        request: Request,
        value: Any = None,
        content_type: str = _JSON,
        params: Mapping[str, str] | None = None,
    ) -> Value:
        """Any request that is answered with one value."""
        content = None if value is None else json.dumps(value).encode()
        headers = {"Accept": _accept(request)}
        if content is not None:
            headers["Content-Type"] = content_type
        name = "" if request.verb in ("create", "list") and not request.below else request.name
        path = request.resource.path(request.namespace, name, request.below)
        try:
            response = await self._client.request(
                _METHODS[request.verb], path, params=dict(params or {}), content=content, headers=headers,
                timeout=_TIMEOUT,
            )  # fmt: skip
        except (httpx2.HTTPError, OSError) as error:
            raise unanswered(request, self.server, error) from error
        if not response.is_success:
            raise refused(request, response.status_code, response.content[:_MOST_BODY], response.headers)
        return _decoded(request, response.content)

    async def watch(
        self,
        request: Request,
        params: Mapping[str, str],
        opened: Callable[[], None],
        feed: Callable[[bytes], None],
    ) -> None:
        """Call `opened` when the watch is accepted, and `feed` with its bytes as they come, until it ends.

        Waits for them without end: the deadline is the caller's. `feed` must not raise (generators of httpx2
        would be left open): to give up, cancel.
        """
        url = request.resource.path(request.namespace)
        headers = {"Accept": _accept(request)}
        timeout = httpx2.Timeout(30.0, connect=5.0, read=None)
        try:
            async with self._client.stream(
                "GET", url, params=dict(params), headers=headers, timeout=timeout
            ) as response:
                if not response.is_success:
                    body = (await response.aread())[:_MOST_BODY]
                    raise refused(request, response.status_code, body, response.headers)
                opened()
                async for chunk in response.aiter_bytes():
                    feed(chunk)
        except (httpx2.HTTPError, OSError) as error:
            raise unanswered(request, self.server, error) from error


def _accept(request: Request) -> str:
    if not request.resource.metadata_only or request.verb not in ("get", "list", "watch"):
        return _JSON
    kind = "PartialObjectMetadataList" if request.verb == "list" else "PartialObjectMetadata"
    return _METADATA.format(kind=kind)


def _decoded(request: Request, content: bytes) -> Value:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiFailure(f"the API server's answer is no JSON ({request}): {error}") from error
    if not isinstance(value, dict):
        raise ApiFailure(f"the API server's answer is no object ({request})")
    return value
