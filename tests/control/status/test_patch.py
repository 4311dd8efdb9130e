"""Statuses become what they should be, and are then left alone; beside an istiod they always are."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random

import trio

from tests.kube.fake import FakeServer, answer, status
from tests.waiting import until
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.follow import ClusterWatch
from ztunnel.control.source.served import SERVED, mesh_config
from ztunnel.control.status.patch import StatusWriter

RESOURCES = {served.kind: served.candidates[0] for served in (*SERVED, mesh_config(MeshSettings())[0])}
POLICIES, SERVICES = RESOURCES["AuthorizationPolicy"], RESOURCES["Service"]
GATEWAYS, ENTRIES = RESOURCES["Gateway"], RESOURCES["ServiceEntry"]


def wall():
    return datetime.fromtimestamp(trio.current_time(), UTC)


def named(name, namespace="shop", meta=None, **more):
    return {"metadata": {"name": name, "namespace": namespace, "generation": 1, **(meta or {})}, **more}


class Written:
    def __init__(self, server, writer):
        self.server, self.writer = server, writer

    def conditions(self, resource, name):
        found = self.server.objects[resource.path()]["shop", name].get("status", {}).get("conditions", [])
        return [(one["type"], one["status"], one["reason"]) for one in found]

    @property
    def patches(self):
        return len([one for one in self.server.requests if one.method == "PATCH"])

    async def until(self, condition):
        await until(condition, 600, 0.1)


@asynccontextmanager
async def writing(*objects, adopt=False, resources=RESOURCES):
    server = FakeServer(*resources.values())
    for resource, value in objects:
        server.put(resource, value)
    async with server.api() as api, trio.open_nursery() as nursery:
        watch = ClusterWatch(api, MeshSettings(), lambda _: None, rng=Random(1))
        writer = StatusWriter(api, watch.collection, MeshSettings(), wall, adopt=adopt)
        watch.unsettled = writer.wake
        await nursery.start(watch.run)
        nursery.start_soon(writer.run)
        yield Written(server, writer)
        nursery.cancel_scope.cancel()


GOOD = (POLICIES, named("good", spec={"rules": [{}]}))
ISTIOD = (SERVICES, named("istiod", "istio-system", {"labels": {"app": "istiod"}}, spec={}))
WAYPOINT = (SERVICES, named("web", meta={"labels": {"istio.io/use-waypoint": "wp"}}, spec={}))
ACCEPTED, INVALID = ("ZtunnelAccepted", "True", "Accepted"), ("ZtunnelAccepted", "False", "Invalid")


async def test_what_becomes_of_each_object_is_written_once(autojump_clock):
    bad = (POLICIES, named("bad", spec={"action": "NO"}))
    async with writing(GOOD, bad, WAYPOINT, (SERVICES, named("plain", spec={}))) as it:
        await it.until(lambda: it.patches == 3)
        assert it.conditions(POLICIES, "good") == [ACCEPTED]
        assert it.conditions(POLICIES, "bad") == [INVALID]
        assert it.conditions(SERVICES, "web") == [("istio.io/WaypointBound", "False", "WaypointIsNotReady")]
        await trio.sleep(7200)  # listed again, too
        assert it.patches == 3


async def test_a_change_is_written_and_so_is_its_mending(autojump_clock):
    async with writing(GOOD) as it:
        await it.until(lambda: it.conditions(POLICIES, "good") == [ACCEPTED])
        for generation, spec, expected in ((2, {"rulez": []}, INVALID), (3, {"rules": []}, ACCEPTED)):
            old = it.server.objects[POLICIES.path()]["shop", "good"]
            it.server.put(
                POLICIES, {**old, "spec": spec, "metadata": {**old["metadata"], "generation": generation}}
            )
            await it.until(lambda expected=expected: it.conditions(POLICIES, "good") == [expected])


async def test_one_that_is_refused_costs_the_others_nothing_and_is_said_until_it_is_over(autojump_clock):
    """The first by name was tried again and again, every five seconds, and no other came after it."""
    refused, told = answer(422, status(422, "Invalid", "status: no")), []
    async with writing(GOOD, WAYPOINT) as it:
        it.writer.tell = told.append
        await it.until(lambda: it.patches == 2)
        bad, meta = "/bad/status", {"generation": 2}
        it.server.faults.append(lambda request: refused if request.url.path.endswith(bad) else None)
        it.server.put(POLICIES, named("bad", spec={"rules": [{}]}))
        await it.until(lambda: told)
        assert told == [
            "AuthorizationPolicy shop/bad: the API server answers 422 "
            "(patch authorizationpolicies.security.istio.io/status bad in namespace shop): status: no"
        ]
        it.server.put(POLICIES, named("worse", meta=meta, spec={"rulez": []}))
        begun = trio.current_time()
        await it.until(lambda: it.conditions(POLICIES, "worse") == [INVALID])
        assert trio.current_time() - begun < 1
        await trio.sleep(600)
        assert it.writer.written["AuthorizationPolicy", "failed"] <= 12
        it.server.faults.clear()
        await it.until(lambda: it.conditions(POLICIES, "bad") == [ACCEPTED])
        await it.until(lambda: told[1:] == [""])


async def test_a_peer_authentication_has_a_condition_only_while_it_is_wrong(autojump_clock):
    peers = RESOURCES["PeerAuthentication"]
    async with writing((peers, named("default", spec={"mtls": {"mode": "STRICT"}}))) as it:
        await trio.sleep(10)
        assert it.patches == 0
        ports = {"mtls": {"mode": "STRICT"}, "portLevelMtls": {"8080": {"mode": "DISABLE"}}}
        it.server.put(peers, named("default", meta={"generation": 2}, spec=ports))
        await it.until(lambda: it.conditions(peers, "default") == [INVALID])
        (condition,) = it.server.objects[peers.path()]["shop", "default"]["status"]["conditions"]
        assert condition["message"] == (
            "spec.portLevelMtls: portLevelMtls needs a selector with matchLabels; "
            "its last good version is in force"
        )
        old = it.server.objects[peers.path()]["shop", "default"]
        it.server.put(peers, {**old, "spec": {}, "metadata": {**old["metadata"], "generation": 3}})
        await it.until(lambda: it.conditions(peers, "default") == [])


async def test_one_that_is_refused_and_then_removed_is_forgotten(autojump_clock):
    refused, told = answer(403, status(403, "Forbidden", "no")), []
    async with writing() as it:
        it.writer.tell = told.append
        it.server.faults.append(lambda request: refused if request.method == "PATCH" else None)
        it.server.put(*GOOD)
        await it.until(lambda: told)
        assert "needs RBAC: patch authorizationpolicies.security.istio.io/status in namespace shop" in told[0]
        it.server.remove(POLICIES, "good", "shop")
        await it.until(lambda: told[1:] == [""])


async def test_beside_an_istiod_nothing_is_written_until_it_is_gone(autojump_clock):
    async with writing(GOOD, ISTIOD) as it:
        await trio.sleep(600)
        assert it.patches == 0
        it.server.remove(SERVICES, "istiod", "istio-system")
        it.server.put(*GOOD)
        await it.until(lambda: it.conditions(POLICIES, "good") == [ACCEPTED])


async def test_beside_an_istiod_its_part_is_taken_over_where_that_is_wanted(autojump_clock):
    async with writing(GOOD, ISTIOD, adopt=True) as it:
        await it.until(lambda: it.conditions(POLICIES, "good") == [ACCEPTED])


LISTENERS = {"listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]}
SERVING = (SERVICES, named("wp", spec={"ports": [{"port": 15008}]}))


def gateway(name, kind):
    return (GATEWAYS, named(name, spec={"gatewayClassName": kind, **LISTENERS}))


async def test_a_gateway_of_ours_gets_its_address_and_others_are_left_alone(autojump_clock):
    async with writing(gateway("wp", "ztunnel-waypoint"), gateway("other", "istio-waypoint"), WAYPOINT) as it:
        await it.until(lambda: len(it.conditions(GATEWAYS, "wp")) == 2)
        assert it.conditions(GATEWAYS, "wp") == [
            ("Accepted", "True", "Accepted"),
            ("Programmed", "False", "AddressNotAssigned"),
        ]
        await it.until(lambda: it.conditions(SERVICES, "web"))
        it.server.put(*SERVING)
        await it.until(lambda: it.conditions(GATEWAYS, "wp")[1] == ("Programmed", "True", "Programmed"))
        status = it.server.objects[GATEWAYS.path()]["shop", "wp"]["status"]
        assert status["addresses"] == [{"type": "Hostname", "value": "wp.shop.svc.cluster.local"}]
        await it.until(
            lambda: it.conditions(SERVICES, "web") == [("istio.io/WaypointBound", "True", "WaypointAccepted")]
        )
        assert it.conditions(GATEWAYS, "other") == []


async def test_what_inherits_its_waypoint_says_so_and_says_when_that_is_gone(autojump_clock):
    """A control plane that starts later knows from that alone that nobody may be called around it."""
    space = (
        RESOURCES["Namespace"],
        {"metadata": {"name": "shop", "labels": {"istio.io/use-waypoint": "wp"}}},
    )
    web = (SERVICES, named("web", spec={}))
    bound, gone = "istio.io/WaypointBound", ("istio.io/WaypointBound", "False", "WaypointMissing")
    async with writing(gateway("wp", "ztunnel-waypoint"), SERVING, space, web) as it:
        await it.until(lambda: it.conditions(SERVICES, "web") == [(bound, "True", "WaypointAccepted")])
        await trio.sleep(60)
        for resource, name in ((GATEWAYS, "wp"), (SERVICES, "wp")):
            it.server.remove(resource, name, "shop")
        await it.until(lambda: it.conditions(SERVICES, "web") == [gone])
        left = it.server.objects[SERVICES.path()]["shop", "web"]
    async with writing(space, (SERVICES, left)) as it:
        await trio.sleep(60)
        assert it.conditions(SERVICES, "web") == [gone]
        it.server.put(space[0], {"metadata": {"name": "shop"}})
        await it.until(lambda: it.conditions(SERVICES, "web") == [])


async def test_a_service_with_policies_for_its_waypoint_says_that_it_is_refused_until_that_is_ready(
    autojump_clock,
):
    said = "calls are refused, as there are policies that it has to enforce"
    policy = (POLICIES, named("p", spec={"targetRefs": [{"kind": "Service", "group": "", "name": "web"}]}))

    def message(it):
        [one] = it.server.objects[SERVICES.path()]["shop", "web"]["status"]["conditions"]
        return one["message"]

    async with writing(WAYPOINT) as it:
        await it.until(lambda: it.conditions(SERVICES, "web"))
        assert said not in message(it)
        it.server.put(*policy)
        await it.until(lambda: said in message(it))
        it.server.remove(POLICIES, "p", "shop")
        await it.until(lambda: said not in message(it))


async def test_beside_an_istiod_gateways_of_our_class_are_seen_to(autojump_clock):
    async with writing(
        gateway("wp", "ztunnel-waypoint"), gateway("other", "istio-waypoint"), GOOD, ISTIOD
    ) as it:
        await it.until(lambda: len(it.conditions(GATEWAYS, "wp")) == 2)
        await trio.sleep(600)
        assert it.conditions(GATEWAYS, "other") == it.conditions(POLICIES, "good") == []


async def test_an_entry_that_claims_anothers_address_is_told_so_until_it_is_free(autojump_clock):
    spec = {"hosts": ["a.example"], "addresses": ["10.96.0.7"], "resolution": "NONE"}
    owner = (SERVICES, named("web", "other", spec={"clusterIP": "10.96.0.7"}))
    async with writing((ENTRIES, named("greedy", spec=spec)), owner) as it:
        await it.until(
            lambda: it.conditions(ENTRIES, "greedy") == [("ZtunnelAccepted", "False", "Conflicted")]
        )
        it.server.remove(SERVICES, "web", "other")
        await it.until(lambda: it.conditions(ENTRIES, "greedy") == [])


async def test_what_somebody_else_has_written_is_left_alone_unless_it_is_adopted(autojump_clock):
    fields = {"f:status": {"f:conditions": {".": {}}}}
    meta = {"managedFields": [{"manager": "pilot-discovery", "fieldsV1": fields}]}
    foreign = (POLICIES, named("theirs", meta=meta, spec={"rules": [{}]}))
    async with writing(foreign, GOOD) as it:
        await it.until(lambda: it.conditions(POLICIES, "good") == [ACCEPTED])
        await trio.sleep(60)
        assert it.conditions(POLICIES, "theirs") == []
    async with writing(foreign, adopt=True) as it:
        await it.until(lambda: it.conditions(POLICIES, "theirs") == [ACCEPTED])


async def test_a_missing_permission_is_named_and_costs_only_statuses(autojump_clock):
    async with writing(GOOD) as it:
        await it.until(lambda: it.patches == 1)
        forbidden = answer(403, status(403, "Forbidden", "no"))
        it.server.faults.append(lambda request: forbidden if request.method == "PATCH" else None)
        it.server.put(*WAYPOINT)
        await it.until(lambda: it.writer.trouble)
        assert "needs RBAC: patch services/status in namespace shop" in it.writer.trouble
        await trio.sleep(60)
        assert it.patches < 20
        it.server.faults.clear()
        await it.until(lambda: it.conditions(SERVICES, "web") and not it.writer.trouble)
        assert it.writer.written["Service", "written"] == 1


async def test_a_version_that_is_not_the_newest_any_more_is_not_overwritten(autojump_clock):
    async with writing(GOOD) as it:
        await it.until(lambda: it.patches == 1)
        conflict = answer(409, status(409, "Conflict", "modified"))
        it.server.faults.append(lambda request: conflict if request.method == "PATCH" else None)
        it.server.put(*WAYPOINT)
        await it.until(lambda: it.patches == 2)
        await trio.sleep(60)
        assert (it.patches, it.writer.trouble) == (2, "")
        it.server.faults.clear()
        it.server.put(*WAYPOINT)
        await it.until(lambda: it.conditions(SERVICES, "web"))


async def test_a_route_has_its_status_below_each_parent_beside_those_of_other_controllers(autojump_clock):
    """kubernetes-sigs/gateway-api: a controller writes the parents that are its own, and leaves the rest."""
    routes = RESOURCES["HTTPRoute"]
    gateway = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    parent = {"group": "", "kind": "Service", "name": "web", "port": 80}
    others = {"controllerName": "example.com/x", "parentRef": gateway, "conditions": []}
    route = named(
        "web",
        spec={
            "parentRefs": [gateway, parent],
            "rules": [{"backendRefs": [{"name": "web", "port": 80, "weight": 1}]}],
        },
        status={"parents": [others]},
    )
    edge = named("edge", spec={"parentRefs": [gateway], "rules": []})
    service = {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}

    def parents():
        found = it.server.objects[routes.path()]["shop", "web"]["status"]["parents"]
        return [
            (one["parentRef"], [(each["type"], each["status"], each["reason"]) for each in one["conditions"]])
            for one in found
        ]

    async with writing((routes, route), (routes, edge)) as it:
        missing = [
            ("Accepted", "False", "NoMatchingParent"),
            ("ResolvedWaypoints", "False", "NoMatchingParent"),
            ("ResolvedRefs", "False", "BackendNotFound"),
        ]
        await it.until(lambda: parents() == [(gateway, []), (parent, missing)])
        it.server.put(SERVICES, named("web", spec=service))
        there = [
            ("Accepted", "True", "Accepted"),
            ("ResolvedWaypoints", "False", "MissingUseWaypointLabel"),
            ("ResolvedRefs", "True", "ResolvedRefs"),
        ]
        await it.until(lambda: parents() == [(gateway, []), (parent, there)])
        before = it.patches
        await trio.sleep(7200)
        assert it.patches == before == 2
        old = it.server.objects[routes.path()]["shop", "web"]
        meta = {**old["metadata"], "generation": 2}
        it.server.put(routes, {**old, "metadata": meta, "spec": {**route["spec"], "parentRefs": [gateway]}})
        await it.until(lambda: parents() == [(gateway, [])])
        assert "status" not in it.server.objects[routes.path()]["shop", "edge"]


async def test_a_virtual_service_says_whether_it_is_in_force(autojump_clock):
    services, rules = RESOURCES["VirtualService"], RESOURCES["DestinationRule"]
    spec = {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web", "subset": "v1"}}]}]}
    web = named("web", spec={"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]})
    async with writing((services, named("web", spec=spec)), (SERVICES, web)) as it:
        partly = ("WaypointAccepted", "True", "PartiallyInvalid")
        await it.until(lambda: it.conditions(services, "web") == [partly])
        subsets = [{"name": "v1", "labels": {"v": "1"}}]
        it.server.put(rules, named("web", spec={"host": "web", "subsets": subsets}))
        await it.until(lambda: it.conditions(services, "web") == [("WaypointAccepted", "True", "Accepted")])
        invalid = ("WaypointAccepted", "False", "Invalid")
        it.server.put(rules, named("web", meta={"generation": 2}, spec={"host": "web", "subset": []}))
        await it.until(lambda: it.conditions(rules, "web") == [invalid])
        assert it.conditions(services, "web") == [("WaypointAccepted", "True", "Accepted")]
        wrong = {"hosts": ["web"], "http": [{"match": [{"uri": {"regex": "("}}], "redirect": {"uri": "/"}}]}
        it.server.put(services, named("web", meta={"generation": 2}, spec=wrong))
        await it.until(lambda: it.conditions(services, "web") == [invalid])
        condition = it.server.objects[services.path()]["shop", "web"]["status"]["conditions"][0]
        assert condition["message"].startswith("spec.http[0].match[0].uri.regex: not a regular expression")
        assert condition["message"].endswith("; its last good version is in force")


async def test_a_status_is_written_in_the_version_that_is_served(autojump_clock):
    """Older Gateway APIs have TCPRoutes in v1alpha2 only: a patch of v1 was answered 404, as if it were
    gone."""
    older = next(one for one in SERVED if one.kind == "TCPRoute").candidates[-1]
    assert older.version == "v1alpha2"
    parent = {"group": "", "kind": "Service", "name": "db"}
    route = named("db", spec={"parentRefs": [parent], "rules": []})
    async with writing((older, route), resources={**RESOURCES, "TCPRoute": older}) as it:
        await it.until(lambda: it.patches == 1)
        (written,) = it.server.objects[older.path()]["shop", "db"]["status"]["parents"]
        assert written["parentRef"] == parent
