"""A cluster is followed through its changes and its API server's failures, and published only whole."""

from __future__ import annotations

from base64 import b64encode
from contextlib import asynccontextmanager
from random import Random

import httpx2
import trio

from tests.kube.fake import FakeServer, answer, status
from tests.l7.issuers import jwk, jwks
from tests.waiting import until
from ztunnel.control.keys.fetch_keys import Keys, Unfetched
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.follow import LONGEST_SECONDS, QUIET_SECONDS, ClusterWatch
from ztunnel.control.source.served import SERVED, mesh_config
from ztunnel.kube.resource import SECRETS
from ztunnel.l7.jwt.jwks import parse_keys
from ztunnel.model.credential import Credential
from ztunnel.telemetry.figures import Figures
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, CREDENTIAL, JWT_POLICY

FOLLOWED = (*SERVED, mesh_config(MeshSettings())[0])
RESOURCES = {served.kind: served.candidates[0] for served in FOLLOWED}
UID = "Kubernetes//Pod/shop/{}"


def named(name, namespace="shop", **more):
    return {"metadata": {"name": name, "namespace": namespace, **more.pop("meta", {})}, **more}


def pod(name, ip="10.0.0.1", **meta):
    return named(name, spec={"nodeName": "n1"}, status={"podIP": ip, "phase": "Running"}, meta=meta)


class Followed:
    def __init__(self, watch, published, observed):
        self.watch, self.published, self.observed = watch, published, observed

    def workloads(self):
        return {name.rpartition("/")[2]: one for name, one in self.published[-1].origins[ADDRESS].items()}

    async def until(self, condition, step=0.01):
        await until(condition, 100_000 * step, step)


def cluster(*absent):
    server = FakeServer(*(one for kind, one in RESOURCES.items() if kind not in absent))
    server.put(
        RESOURCES["Namespace"],
        {"metadata": {"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}}},
    )
    server.put(
        RESOURCES["Node"], {"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}}
    )
    server.put(RESOURCES["Pod"], pod("a"))
    return server


@asynccontextmanager
async def followed(server, started=True, keys=None):
    published, observed = [], []
    async with server.api() as api, trio.open_nursery() as nursery:
        watch = ClusterWatch(
            api, MeshSettings(), published.append, lambda: observed.append(watch.troubles), Random(1)
        )
        if keys is not None:
            watch.keys = keys
            nursery.start_soon(keys.run)
        if started:
            with trio.fail_after(60):
                await nursery.start(watch.run)
        else:
            nursery.start_soon(watch.run)
        yield Followed(watch, published, observed)
        nursery.cancel_scope.cancel()


async def test_the_first_snapshot_has_everything_that_is_there(autojump_clock):
    server = cluster()
    server.put(RESOURCES["AuthorizationPolicy"], named("p", spec={"rules": [{}]}))
    async with followed(server) as it:
        assert len(it.published) == 1
        workload = it.workloads()["a"]
        assert (workload.enrolled, workload.locality.zone) == (True, "z")
        assert set(it.published[0].resources[AUTHORIZATION]) == {"shop/p"}
        assert (it.watch.loaded, it.watch.missing, len(it.watch.change.added)) == (True, (), 0)


async def test_nothing_is_published_while_a_kind_has_not_been_listed(autojump_clock):
    server = cluster()
    server.put(RESOURCES["AuthorizationPolicy"], named("p", spec={"action": "DENY", "rules": [{}]}))
    forbidden = answer(403, status(403, "Forbidden", "no"))
    path = RESOURCES["AuthorizationPolicy"].path()
    server.faults.append(lambda request: forbidden if request.url.path == path else None)
    async with followed(server, started=False) as it:
        await trio.sleep(300)
        assert (it.published, it.watch.missing) == ([], ("AuthorizationPolicy",))
        assert "needs RBAC: list authorizationpolicies.security.istio.io" in it.watch.troubles[0]
        assert it.observed[-1] == it.watch.troubles
        server.faults.clear()
        await it.until(lambda: it.published)
        assert set(it.published[0].resources[AUTHORIZATION]) == {"shop/p"}
        await it.until(lambda: it.watch.troubles == ())


async def test_kinds_that_are_not_installed_are_not_waited_for_and_count_when_they_are(autojump_clock):
    server = cluster("AuthorizationPolicy", "PeerAuthentication")
    async with followed(server) as it:
        assert it.watch.troubles == ()
        both = tuple(f"{one}.security.istio.io" for one in ("authorizationpolicies", "peerauthentications"))
        assert it.watch.absent == both
        server.install(RESOURCES["AuthorizationPolicy"])
        server.put(RESOURCES["AuthorizationPolicy"], named("p", spec={}))
        await it.until(lambda: it.published[-1].resources[AUTHORIZATION])
        assert it.watch.absent == both[1:]
        server.uninstall(RESOURCES["AuthorizationPolicy"])
        await it.until(lambda: not it.published[-1].resources[AUTHORIZATION])


async def test_a_change_is_published_when_it_is_quiet_again(autojump_clock):
    server = cluster()
    async with followed(server) as it:
        await it.until(lambda: len(server.watches) == len(FOLLOWED))
        begun = trio.current_time()
        server.put(RESOURCES["Pod"], pod("b", "10.0.0.2"))
        server.put(RESOURCES["Pod"], pod("c", "10.0.0.3"))
        await it.until(lambda: "c" in it.workloads())
        assert QUIET_SECONDS <= trio.current_time() - begun < LONGEST_SECONDS
        assert len(it.published) == 2
        assert it.published[1].changed[ADDRESS] == {UID.format("b"), UID.format("c")}


async def test_a_snapshot_says_when_its_first_change_came(autojump_clock):
    server = cluster()
    async with followed(server) as it:
        await it.until(lambda: len(server.watches) == len(FOLLOWED))
        for name in ("b", "c"):
            server.put(RESOURCES["Pod"], pod(name, "10.0.0.2"))
            begun = trio.current_time()
            await trio.sleep(0.05)
            server.put(RESOURCES["Pod"], pod(f"{name}2", "10.0.0.3"))
            await it.until(lambda name=name: f"{name}2" in it.workloads())
            assert begun <= it.published[-1].changed_at < begun + 0.05


async def test_what_changes_nothing_does_not_make_the_next_change_old(autojump_clock):
    """Events of a policy's status, say, which we write ourselves."""
    server = cluster()
    async with followed(server) as it:
        await it.until(lambda: len(server.watches) == len(FOLLOWED))
        server.put(RESOURCES["Pod"], pod("a", annotations={"somebody": "was here"}))
        await trio.sleep(7)
        server.put(RESOURCES["Pod"], pod("b", "10.0.0.2"))
        begun = trio.current_time()
        await it.until(lambda: "b" in it.workloads())
        assert len(it.published) == 2
        assert it.published[-1].changed_at >= begun


async def test_changes_without_end_are_published_all_the_same(autojump_clock):
    server = cluster()
    async with followed(server) as it:
        await it.until(lambda: len(server.watches) == len(FOLLOWED))
        for number in range(100):
            server.put(RESOURCES["Pod"], pod("b", f"10.0.1.{number}"))
            await trio.sleep(0.05)
        assert 15 <= len(it.published) <= 25


async def test_the_api_server_may_go_and_come_back(autojump_clock):
    server = cluster()
    async with followed(server) as it:
        await it.until(lambda: len(server.watches) == len(FOLLOWED))

        def away(_request):
            raise httpx2.ConnectError("connection refused")

        server.faults.append(away)
        server.end_watches(httpx2.ReadError("reset"))
        await it.until(lambda: len(it.watch.troubles) == len(FOLLOWED))
        assert it.workloads().keys() == {"a"}
        assert "no answer from the API server https://fake" in it.watch.troubles[0]
        server.remove(RESOURCES["Pod"], "a", "shop")
        server.put(RESOURCES["Pod"], pod("b", "10.0.0.2"))
        server.compact()
        server.faults.clear()
        await it.until(lambda: it.workloads().keys() == {"b"})
        await it.until(lambda: it.watch.troubles == ())
        assert it.observed[-1] == ()


async def test_a_faulty_policy_costs_itself_and_is_told(autojump_clock):
    server, policies = cluster(), RESOURCES["AuthorizationPolicy"]
    server.put(policies, named("p", spec={"action": "DENY", "rules": [{}]}))
    async with followed(server) as it:
        await it.until(lambda: len(server.watches) == len(FOLLOWED))
        server.put(policies, named("p", spec={"action": "DENY", "rules": [{"when": [{"key": "nonsense"}]}]}))
        server.put(RESOURCES["Pod"], pod("b", "10.0.0.2"))
        await it.until(lambda: "b" in it.workloads())
        assert [fault.file for fault in it.watch.faults] == ["AuthorizationPolicy shop/p"] * 2
        assert set(it.published[-1].resources[AUTHORIZATION]) == {"shop/p"}
        (found,) = it.watch.inventory.policies
        assert found.kept


async def test_figures_tell_events_objects_and_failures(autojump_clock):
    server, figures = cluster(), Figures()
    server.faults.append(lambda request: answer(500, {}) if len(server.requests) == 1 else None)
    async with followed(server) as it:
        it.watch.register(figures)
        read = {family.name: dict(family.samples) for family in figures.families()}
        assert read["ztunnel_kube_objects"]["Pod",] == 1
        assert read["ztunnel_kube_events_total"]["Pod", "add"] == 1
        assert sum(read["ztunnel_kube_failures_total"].values()) == 1
        assert sum(read["ztunnel_kube_stale"].values()) == 0


async def test_figures_tell_what_names_a_waypoint_that_does_not_serve_it(autojump_clock):
    server, figures = cluster(), Figures()
    labels = {"istio.io/use-waypoint": "wp"}
    server.put(RESOURCES["Service"], named("web", spec={}, meta={"labels": labels}))

    def unbound():
        return next(
            sum(dict(one.samples).values())
            for one in figures.families()
            if one.name == "ztunnel_control_waypoints_not_bound"
        )

    async with followed(server) as it:
        it.watch.register(figures)
        assert unbound() == 1
        listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
        spec = {"gatewayClassName": "ztunnel-waypoint", "listeners": [listener]}
        server.put(RESOURCES["Gateway"], named("wp", spec=spec))
        server.put(RESOURCES["Service"], named("wp", spec={"ports": [{"port": 15008}]}))
        await it.until(lambda: unbound() == 0)


class Issuer:
    """Gives keys; while it is away it does not."""

    def __init__(self):
        self.kid, self.away, self.asked = "k1", False, 0

    async def fetch(self, source):
        self.asked += 1
        await trio.sleep(1)
        if self.away:
            raise Unfetched("refused")
        return parse_keys(jwks(jwk("EdDSA", self.kid)).encode())


async def test_keys_of_issuers_are_fetched_and_published_when_they_are_others(autojump_clock):
    issuer = Issuer()
    rule = {"issuer": "https://i.example", "jwksUri": "https://i.example/keys"}
    server = cluster()
    server.put(
        RESOURCES["RequestAuthentication"],
        named("p", spec={"targetRefs": [{"kind": "Service", "name": "web"}], "jwtRules": [rule]}),
    )
    async with followed(server, keys=Keys(issuer, Random(1))) as it:

        def keys():
            (found,) = it.published[-1].origins[JWT_POLICY]["shop/p"].rules
            return found.keys

        assert keys() == ""  # nobody waits for an issuer
        await it.until(lambda: "k1" in keys(), 10)
        issuer.kid = "k2"
        await it.until(lambda: "k2" in keys(), 10)


SECRETS_AT = "/api/v1/namespaces/shop/secrets"


def secret(name, **texts):
    data = {key.replace("_", "."): b64encode(text.encode()).decode() for key, text in texts.items()}
    return named(name, data=data)


def behind_a_waypoint(*absent):
    """A service of a waypoint, whose servers are called with a Secret."""
    server = FakeServer(*(one for kind, one in RESOURCES.items() if kind not in absent), SECRETS)
    meta = {"labels": {"istio.io/use-waypoint": "w"}}
    ports = [{"name": "http", "port": 80}]
    server.put(RESOURCES["Namespace"], {"metadata": {"name": "shop"}})
    server.put(RESOURCES["Service"], named("web", meta=meta, spec={"clusterIP": "10.1.0.1", "ports": ports}))
    hbone = [{"name": "hbone", "port": 15008}]
    server.put(RESOURCES["Service"], named("w", spec={"clusterIP": "10.1.0.2", "ports": hbone}))
    listeners = [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]
    gateway = {"gatewayClassName": "ztunnel-waypoint", "listeners": listeners}
    address = {"addresses": [{"type": "Hostname", "value": "w.shop.svc.cluster.local"}]}
    server.put(RESOURCES["Gateway"], named("w", spec=gateway, status=address))
    tls = {"mode": "MUTUAL", "credentialName": "s"}
    server.put(RESOURCES["DestinationRule"], named("d", spec={"host": "web", "trafficPolicy": {"tls": tls}}))
    return server


def credentials(it):
    return dict(it.published[-1].origins[CREDENTIAL]) if it.published else {}


async def test_a_secret_that_a_waypoint_needs_is_watched_by_its_name_and_no_other(autojump_clock):
    server = behind_a_waypoint()
    server.put(SECRETS, secret("s", tls_crt="C", tls_key="K", ca_crt="R"))
    server.put(SECRETS, secret("other", password="x"))
    async with followed(server) as it:
        first = dict(it.published[0].origins[CREDENTIAL])
        assert first == {"shop/s": Credential("s", "shop", "C", "K", "R")}
        asked = {
            request.url.params.get("fieldSelector")
            for request in server.requests
            if request.url.path.endswith("/secrets")
        }
        assert asked == {"metadata.name=s", "metadata.name=s-cacert"}
        assert {request.url.path for request in server.requests if "secrets" in request.url.path} == {
            SECRETS_AT
        }
        await it.until(lambda: [one.collection for one in server.watches].count(SECRETS.path()) == 2)
        server.put(SECRETS, secret("s", tls_crt="C2", tls_key="K2", ca_crt="R"))
        await it.until(lambda: credentials(it)["shop/s"].certificate == "C2")
        server.put(SECRETS, secret("s-cacert", cacert="R2"))
        await it.until(lambda: credentials(it)["shop/s"].roots == "R2")
        server.remove(SECRETS, "s", "shop")
        await it.until(lambda: credentials(it)["shop/s"].problem == "there is no Secret shop/s")
        assert any("there is no Secret shop/s" in text for text in it.watch.warnings)
        server.remove(RESOURCES["DestinationRule"], "d", "shop")
        await it.until(lambda: not credentials(it))
        await it.until(lambda: not [one for one in server.watches if one.collection == SECRETS.path()])


async def test_secrets_that_may_not_be_read_hold_nothing_up_and_name_the_right(autojump_clock):
    server = behind_a_waypoint()
    server.put(SECRETS, secret("s", tls_crt="C", tls_key="K", ca_crt="R"))
    forbidden = answer(403, status(403, "Forbidden", "no"))
    server.faults.append(lambda request: forbidden if request.url.path == SECRETS_AT else None)
    async with followed(server) as it:
        await it.until(lambda: "cannot be read" in credentials(it)["shop/s"].problem)
        assert "needs RBAC: list secrets" in it.watch.troubles[0]
        assert "waypoint.credentialNamespaces" in it.watch.troubles[0]
        (key,) = [one for one in it.watch.collection.standings if one.kind == "DestinationRule"]
        (condition,) = it.watch.collection.conditions(key, MeshSettings())
        assert (condition.met, condition.reason) == (False, "InvalidCertificateRef")
        assert "credentialName 's', for waypoints of shop: Secret shop/s cannot be read" in condition.message
        it.watch.collection.unsettled.clear()
        server.faults.clear()
        await it.until(lambda: credentials(it)["shop/s"] == Credential("s", "shop", "C", "K", "R"))
        await it.until(lambda: it.watch.troubles == ())
        assert it.watch.collection.conditions(key, MeshSettings()) == ()
        assert key in it.watch.collection.unsettled


async def test_a_secret_that_is_none_keeps_its_last_good_version(autojump_clock):
    server = behind_a_waypoint()
    server.put(SECRETS, secret("s", tls_crt="C", tls_key="K", ca_crt="R"))
    async with followed(server) as it:
        server.put(SECRETS, named("s", data={"tls.crt": "%%%"}))
        await it.until(lambda: it.watch.faults)
        assert credentials(it)["shop/s"].certificate == "C"
        assert it.watch.collection.last_good() == {"waypoints": {"served": ["shop/w"]}}  # and no Secret
