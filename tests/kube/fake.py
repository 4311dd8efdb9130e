"""An API server in memory, for what a real one cannot be made to do: it fails, stands still and forgets
when it is told to. What it does otherwise is held to the real one's behaviour by test_contract.py."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx2
import trio

from ztunnel.kube.call import APPLY, Api
from ztunnel.kube.resource import Resource

Fault = Callable[[httpx2.Request], httpx2.Response | None]


def status(code, reason, message, **details):
    value = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return value | ({"details": details} if details else {})


def answer(code, value, headers=()):
    return httpx2.Response(code, json=value, headers=dict(headers))


def selected(value, params, namespace=""):
    """Whether an object is of that namespace, and has the name that a field selector gives."""
    meta, selector = value["metadata"], params.get("fieldSelector") or ""
    name = selector.removeprefix("metadata.name=") if selector.startswith("metadata.name=") else ""
    return namespace in ("", meta.get("namespace", "")) and name in ("", meta["name"])


class Stream(httpx2.AsyncByteStream):
    """The body of a watch."""

    def __init__(self, watch):
        self.watch = watch

    async def __aiter__(self) -> AsyncIterator[bytes]:
        end = trio.current_time() + self.watch.seconds
        while trio.current_time() < end:
            while self.watch.waiting:
                line = self.watch.waiting.pop(0)
                if isinstance(line, Exception):
                    raise line
                if line is None:
                    return
                yield line
            with trio.move_on_at(end):
                await self.watch.arrived.wait()
                self.watch.arrived = trio.Event()

    async def aclose(self) -> None:
        self.watch.close()


class Watch:
    def __init__(self, server, collection, seconds):
        self.server, self.collection, self.seconds = server, collection, seconds
        self.waiting, self.arrived = [], trio.Event()
        self.only = lambda _value: True

    def send(self, line):
        self.waiting.append(line)
        self.arrived.set()

    def close(self):
        if self in self.server.watches:
            self.server.watches.remove(self)


class FakeServer(httpx2.AsyncBaseTransport):
    """`faults` are asked in turn about each request; the first answer counts. Those of which `hangs` says so
    are never answered. `served`: collections by path."""

    def __init__(self, *resources: Resource) -> None:
        self.served = {resource.path(): resource for resource in resources}
        self.definitions = {f"{one.plural}.{one.group}" for one in resources if one.custom}
        self.objects: dict[str, dict[tuple[str, str], dict]] = {path: {} for path in self.served}
        self.history: list[tuple[int, str, str, dict]] = []
        self.version = 100
        self.oldest = 0
        self.snapshots: dict[str, tuple[str, int, list]] = {}
        self.faults: list[Fault] = []
        self.hangs: Callable[[httpx2.Request], bool] = lambda _: False
        self.watches: list[Watch] = []
        self.requests: list[httpx2.Request] = []

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        async with httpx2.AsyncClient(transport=self, base_url="https://fake") as client:
            yield Api(client, "https://fake")

    # --- what a test does to it

    def put(self, resource, value):
        """Create or replace an object."""
        meta = value["metadata"]
        key = meta.get("namespace", ""), meta["name"]
        objects = self.objects[resource.path()]
        kind = "MODIFIED" if key in objects else "ADDED"
        self.version += 1
        value = {**value, "metadata": {**meta, "resourceVersion": str(self.version)}}
        objects[key] = value
        self._record(resource.path(), kind, value)

    def remove(self, resource, name, namespace=""):
        value = self.objects[resource.path()].pop((namespace, name))
        self.version += 1
        value = {**value, "metadata": {**value["metadata"], "resourceVersion": str(self.version)}}
        self._record(resource.path(), "DELETED", value)

    def compact(self):
        """Forget all versions before this one, and every list that is being continued."""
        self.oldest = self.version
        self.snapshots.clear()

    def bookmark(self):
        """Say the current version to all watches."""
        for watch in list(self.watches):
            value = {"metadata": {"resourceVersion": str(self.version)}}
            watch.send(line({"type": "BOOKMARK", "object": value}))

    def end_watches(self, how=None):
        """End all watches: properly, with an ERROR event, or by an exception."""
        for watch in list(self.watches):
            if isinstance(how, dict):
                watch.send(line({"type": "ERROR", "object": how}))
                how_to_end = None
            else:
                how_to_end = how
            watch.send(how_to_end)

    def uninstall(self, resource):
        self.definitions.discard(f"{resource.plural}.{resource.group}")
        for namespace, name in list(self.objects[resource.path()]):
            self.remove(resource, name, namespace)
        del self.served[resource.path()]
        self.end_watches()

    def install(self, resource):
        self.definitions.add(f"{resource.plural}.{resource.group}")
        self.served[resource.path()] = resource
        self.objects.setdefault(resource.path(), {})

    # --- what a client sees

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        if self.hangs(request):
            await trio.sleep_forever()
        for fault in self.faults:
            if (response := fault(request)) is not None:
                return response
        return self._answer(request)

    def _answer(self, request):
        path, params = request.url.path, request.url.params
        if path.startswith("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"):
            name = path.rpartition("/")[2]
            if name in self.definitions:
                return answer(200, {"metadata": {"name": name, "resourceVersion": "1"}})
            return answer(404, status(404, "NotFound", f'customresourcedefinitions "{name}" not found'))
        if path not in self.served:
            return self._one(request) or httpx2.Response(404, text="404 page not found\n")
        if request.method == "POST":
            return self._write(self.served[path], json.loads(request.content), create=True)
        if params.get("watch") == "true":
            return self._watch(path, params)
        return self._list(path, params)

    def _one(self, request):
        """One object, by its name: read, replaced, patched (its status as well) or deleted."""
        for path, resource in self.served.items():
            inside = re.escape(path).replace(
                re.escape(resource.plural), f"(?:namespaces/([^/]+)/)?{resource.plural}"
            )
            found = re.fullmatch(rf"{inside}(?:/([^/]+))?(/status)?", request.url.path)
            if found is None:
                continue
            if request.method == "POST":
                return self._write(resource, json.loads(request.content), create=True)
            if not found[2]:
                if request.url.params.get("watch") == "true":
                    return self._watch(path, request.url.params, found[1] or "")
                return self._list_inside(path, found[1], request.url.params)
            key = found[1] or "", found[2]
            old = self.objects[path].get(key)
            applied = request.headers.get("content-type") == APPLY
            if applied:
                new = json.loads(request.content)
                meta = {**(old or {}).get("metadata", {}), **new["metadata"]}
                self.put(resource, {**(old or {}), **new, "metadata": meta})
                return answer(200, self.objects[path][key])
            if old is None:
                return answer(404, status(404, "NotFound", f'{resource.plural} "{found[2]}" not found'))
            if request.method == "GET":
                return answer(200, old)
            if request.method == "DELETE":
                self.remove(resource, found[2], key[0])
                return answer(200, {"kind": "Status"})
            new = json.loads(request.content)
            if request.method == "PATCH":
                uid = new["metadata"].get("uid")
                if uid is not None and uid != old["metadata"].get("uid"):
                    return answer(409, status(409, "Conflict", "Precondition failed: UID in precondition"))
                new = merged(old, new)
            return self._write(resource, new, create=False)
        return None

    def _list_inside(self, path, namespace, params):
        """Of one namespace, whole; of one name where that is asked for."""
        found = sorted(self.objects[path].items())
        label, _, wanted = (params.get("labelSelector") or "").partition("=")
        items = [
            value
            for _, value in found
            if selected(value, params, namespace)
            and (not label or (value["metadata"].get("labels") or {}).get(label) == wanted)
        ]
        meta = {"resourceVersion": str(self.version)}
        return answer(200, {"kind": "List", "metadata": meta, "items": items})

    def _write(self, resource, value, *, create):
        meta = value["metadata"]
        old = self.objects[resource.path()].get((meta.get("namespace", ""), meta["name"]))
        wanted = meta.get("resourceVersion")
        if create and old is not None:
            return answer(409, status(409, "AlreadyExists", f'"{meta["name"]}" already exists'))
        if not create and wanted and wanted != old["metadata"]["resourceVersion"]:
            return answer(409, status(409, "Conflict", "the object has been modified"))
        self.put(resource, value)
        return answer(
            201 if create else 200, self.objects[resource.path()][meta.get("namespace", ""), meta["name"]]
        )

    def _list(self, path, params):
        wanted = int(params.get("resourceVersion") or 0)
        if wanted > self.version:
            said = f"Timeout: Too large resource version: {wanted}, current: {self.version}"
            return answer(
                504, status(504, "Timeout", said, retryAfterSeconds=1), {"Retry-After": "1"}.items()
            )
        limit = int(params.get("limit") or 0)
        if token := params.get("continue"):
            if token not in self.snapshots:
                return answer(410, status(410, "Expired", "The provided continue parameter is too old"))
            version, start, items = self.snapshots[token]
        else:
            version, start, items = str(self.version), 0, sorted(self.objects[path].items())
            items = [value for _, value in items]
        end = start + limit if limit else len(items)
        meta = {"resourceVersion": version}
        if end < len(items):
            meta["continue"] = token = f"{path}:{version}:{end}"
            self.snapshots[token] = version, end, items
        # An empty list of metadata alone comes as null.
        page = items[start:end] or (None if self.served[path].metadata_only else [])
        return answer(200, {"kind": "List", "metadata": meta, "items": page})

    def _watch(self, path, params, namespace=""):
        since = int(params.get("resourceVersion") or 0)
        watch = Watch(self, path, float(params.get("timeoutSeconds") or 1800))
        watch.only = lambda value: selected(value, params, namespace)
        if since < self.oldest:
            said = f"too old resource version: {since} ({self.oldest})"
            watch.send(line({"type": "ERROR", "object": status(410, "Expired", said)}))
            watch.send(None)
        elif since > self.version:
            said = f"Timeout: Too large resource version: {since}, current: {self.version}"
            return answer(
                504, status(504, "Timeout", said, retryAfterSeconds=1), {"Retry-After": "1"}.items()
            )
        else:
            for version, where, kind, value in self.history:
                if where == path and version > since and watch.only(value):
                    watch.send(line({"type": kind, "object": value}))
            self.watches.append(watch)
        return httpx2.Response(200, stream=Stream(watch))

    def _record(self, path, kind, value):
        self.history.append((self.version, path, kind, value))
        for watch in list(self.watches):
            if watch.collection == path and watch.only(value):
                watch.send(line({"type": kind, "object": value}))


def merged(old, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    found = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found


def line(event) -> bytes:
    return json.dumps(event).encode() + b"\n"


def once(*responses) -> Fault:
    """Each of these answers once, in turn; an exception is raised, None lets the request pass."""
    waiting: Iterator = iter(responses)

    def fault(_request):
        response = next(waiting, None)
        if isinstance(response, Exception):
            raise response
        return response

    return fault
