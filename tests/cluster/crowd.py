"""A crowd of services, endpoints that no pod stands behind, and policies: what a large mesh has beside the
pods of a test. Made and removed by many requests at once, where kubectl would take half a minute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.cluster.cluster import Cluster, Object
from ztunnel.kube.call import Api
from ztunnel.kube.connect import open_api
from ztunnel.kube.failure import Request
from ztunnel.kube.resource import ENDPOINT_SLICES, NAMESPACES, SERVICES, Resource

POLICIES = Resource("security.istio.io", "v1", "authorizationpolicies", "AuthorizationPolicy", custom=True)

NAMESPACE_COUNT = 10
SERVICE_COUNT, ENDPOINT_COUNT, POLICY_COUNT = 300, 1000, 200
"""In all."""
_AT_ONCE = 16


def send(config: Path, verb: str, work: Sequence[tuple[Resource, Object]], each_second: float = 0.0) -> None:
    """Create, patch or delete all these, many at once; or so many each second."""

    async def send_all() -> None:
        limit = trio.CapacityLimiter(_AT_ONCE)
        async with open_api(str(config)) as api, trio.open_nursery() as nursery:
            begun = trio.current_time()
            for number, (resource, value) in enumerate(work):
                if each_second:
                    await trio.sleep_until(begun + number / each_second)
                nursery.start_soon(_send_one, api, verb, resource, value, limit)

    trio.run(send_all)


@dataclass(frozen=True)
class Crowd:
    """Namespaces `PREFIX-0` to `PREFIX-9`."""

    config: Path
    prefix: str

    @property
    def namespaces(self) -> list[str]:
        return [f"{self.prefix}-{number}" for number in range(NAMESPACE_COUNT)]

    def service(self, number: int) -> Object:
        meta = {"name": f"service-{number}", "namespace": self.namespaces[number % NAMESPACE_COUNT]}
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        return {"metadata": meta, "spec": {"ports": ports, "ipFamilyPolicy": "PreferDualStack"}}

    def slice(self, number: int, ready: bool = True) -> Object:
        """Of that service: three or four endpoints. Every other one is of IPv6."""
        v6 = bool(number % 2)
        count = len(range(number, ENDPOINT_COUNT, SERVICE_COUNT))
        addresses = [
            f"fd00:250::{number:x}:{each + 1}"
            if v6
            else f"10.250.{number % 250}.{number // 250 * 10 + each + 1}"
            for each in range(count)
        ]
        name = f"service-{number}"
        return {
            "metadata": {
                "name": name,
                "namespace": self.namespaces[number % NAMESPACE_COUNT],
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv6" if v6 else "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [each], "conditions": {"ready": ready}} for each in addresses],
        }

    def policy(self, number: int, port: int = 8080) -> Object:
        """Every other one selects."""
        principals = [f"cluster.local/ns/{namespace}/sa/default" for namespace in self.namespaces]
        to = [{"operation": {"ports": ["8080", str(port)]}}]
        spec: Object = {
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": principals}}], "to": to}],
        }
        if number % 2:
            spec["selector"] = {"matchLabels": {"app": f"app-{number}"}}
        meta = {"name": f"policy-{number}", "namespace": self.namespaces[number % NAMESPACE_COUNT]}
        return {"metadata": meta, "spec": spec}

    def create(self) -> None:
        """All of it."""
        labels = {"istio.io/dataplane-mode": "ambient"}
        spaces = [{"metadata": {"name": name, "labels": labels}} for name in self.namespaces]
        send(self.config, "create", [(NAMESPACES, each) for each in spaces])
        work = [(SERVICES, self.service(number)) for number in range(SERVICE_COUNT)]
        work += [(ENDPOINT_SLICES, self.slice(number)) for number in range(SERVICE_COUNT)]
        work += [(POLICIES, self.policy(number)) for number in range(POLICY_COUNT)]
        send(self.config, "create", work)

    def change(self, number: int, count: int, each_second: float) -> int:
        """Change number `number`: so many objects, endpoints that become unready or ready again and, each
        fourth and the last, policies. The port that the last one, a policy, names from then on."""
        port = 10000 + number * count
        work: list[tuple[Resource, Object]] = []
        for each in range(1, count + 1):
            if each % 4 and each < count:
                work.append((ENDPOINT_SLICES, self.slice(each % SERVICE_COUNT, ready=bool(number % 2))))
            else:
                work.append((POLICIES, self.policy(each % POLICY_COUNT, port + each)))
        send(self.config, "patch", work, each_second)
        return port + count


async def _send_one(
    api: Api, verb: str, resource: Resource, value: Object, limit: trio.CapacityLimiter
) -> None:
    meta = value["metadata"]
    namespace = meta.get("namespace", "")
    async with limit:
        if verb == "create":
            whole = {"apiVersion": resource.api_version, "kind": resource.kind, **value}
            await api.create(resource, whole, namespace)
        elif verb == "delete":
            await api.delete(resource, meta["name"], namespace)
        else:
            await api.patch(Request(verb, resource, namespace, meta["name"]), value)


@contextmanager
def crowd(cluster: Cluster, prefix: str) -> Iterator[Crowd]:
    """Made, and removed at the end, which is not waited for: there are no pods in it."""
    made = Crowd(cluster.config, prefix)
    try:
        made.create()
        yield made
    finally:
        cluster.call("delete", "namespace", *made.namespaces, "--ignore-not-found", "--wait=false")
