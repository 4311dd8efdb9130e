"""An API server in memory that also takes writes, for Secrets and ConfigMaps."""

from __future__ import annotations

import json
import re

from tests.kube.fake import FakeServer, answer, status
from ztunnel.kube.resource import CONFIG_MAPS, NAMESPACES, SECRETS, Resource

_PATH = re.compile(r"/api/v1/namespaces/([^/]+)/(secrets|configmaps)(?:/([^/]+))?")


class Store(FakeServer):
    """Objects of a namespace by its own path too; `fieldSelector=metadata.name=X` is obeyed."""

    def __init__(self, *others: Resource) -> None:
        super().__init__(NAMESPACES, SECRETS, CONFIG_MAPS, *others)
        self.writes: list[tuple[str, str, str]] = []

    def _answer(self, request):
        path, params = request.url.path, request.url.params
        found = _PATH.fullmatch(path)
        if found is None:
            return super()._answer(request)
        namespace, plural, name = found.groups()
        resource = SECRETS if plural == "secrets" else CONFIG_MAPS
        if request.method == "GET" and name:
            one = self.objects[resource.path()].get((namespace, name))
            missing = status(404, "NotFound", f'{plural} "{name}" not found')
            return answer(404, missing) if one is None else answer(200, one)
        if request.method == "GET":
            whole = f"/api/v1/{plural}"
            return self._watch(whole, params) if params.get("watch") == "true" else self._list(whole, params)
        return self._write_map(request.method, resource, (namespace, name), json.loads(request.content))

    def _write_map(self, method, resource, key, value):
        namespace, name = key
        objects = self.objects[resource.path()]
        if method == "POST":
            name = value["metadata"]["name"]
            if (namespace, name) in objects:
                said = f'{resource.plural} "{name}" already exists'
                return answer(409, status(409, "AlreadyExists", said))
        else:
            old = objects.get((namespace, name))
            if old is None:
                return answer(404, status(404, "NotFound", f'{resource.plural} "{name}" not found'))
            meta = old["metadata"] | value["metadata"]
            value = old | {"metadata": meta, "data": {**(old.get("data") or {}), **value["data"]}}
        self.writes.append((method, namespace, name))
        self.put(resource, value)
        return answer(200, objects[namespace, name])

    # --- what a test does to it

    def put_namespace(self, name, **meta):
        self.put(NAMESPACES, {"metadata": {"name": name, **meta}})

    def put_map(self, namespace, name, data, manager="kubectl"):
        meta = {"name": name, "namespace": namespace, "managedFields": [{"manager": manager}]}
        self.put(CONFIG_MAPS, {"metadata": meta, "data": data})

    def map(self, namespace, name):
        """Its data."""
        found = self.objects[CONFIG_MAPS.path()].get((namespace, name))
        return None if found is None else found["data"]

    def secret(self, namespace, name):
        return self.objects[SECRETS.path()].get((namespace, name))
