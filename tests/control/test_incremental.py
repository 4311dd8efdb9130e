"""Whatever the way to a set of objects, in whatever steps, its translation is that of all at once."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import key_of
from ztunnel.control.status.conditions import wanted
from ztunnel.control.translation import Translator
from ztunnel.model.route_match import Match, TextKind, TextMatch
from ztunnel.model.service import IpFamilies
from ztunnel.model.traffic import UNSAID, Balance, Balancing, PortTraffic, Traffic
from ztunnel.model.workload import Workload
from ztunnel.state.connection_route import BackendRule, TCPRoute, TLSRoute
from ztunnel.state.destination_rule import DestinationRule, Subset
from ztunnel.state.endpoints import Endpoints, EndpointSlice, SliceEndpoint
from ztunnel.state.gateway import Gateway, GatewayClass, LabelSelector, Listener, ReferenceGrant
from ztunnel.state.http_route import GRPCRoute, HTTPRoute, RouteRule
from ztunnel.state.istio import AuthorizationPolicy, Mode, PeerAuthentication, PolicyRule
from ztunnel.state.kube import Namespace, Node, Pod, Service, ServicePort
from ztunnel.state.meta import Meta
from ztunnel.state.networking import EntryEndpoint, EntryPort, Resolution, ServiceEntry, WorkloadEntry
from ztunnel.state.route_filter import Backend, Reference
from ztunnel.state.virtual_match import RequestMatch, Sources
from ztunnel.state.virtual_service import ConnectionRule, RequestRule, Target, VirtualService, WeightedTarget

IP = ip_address("10.0.0.1")
SETTINGS = MeshSettings(root_namespace="root")
SPACES = st.sampled_from(["one", "two", "root"])
LABELS = st.sampled_from([{}, {"app": "a"}, {"app": "b"}, {"app": "a", "x": "y"}])
ADDRESSES = st.sampled_from([(), ("10.0.0.1",), ("10.0.0.2",), ("10.0.0.2", "fd00::2"), ("10.0.0.3",)]).map(
    lambda texts: tuple(map(ip_address, texts))
)
MODE = {"istio.io/dataplane-mode": "ambient"}
DISTRIBUTED = {"networking.istio.io/traffic-distribution": "PreferClose"}
DURATION = st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])


def metas(names, spaces=SPACES, labels=LABELS):
    return st.builds(
        lambda name, space, labels, created, deleting: Meta(name, space, labels, {}, created, deleting),
        st.sampled_from(names), spaces, labels, DURATION, st.booleans(),
    )  # fmt: skip


PODS = st.builds(
    Pod, metas(["p", "q"]), st.sampled_from(["n1", "n2"]), st.just("default"), st.booleans(),
    st.sampled_from([{}, {"web": 8080}]), ADDRESSES, st.sampled_from(["", "Running", "Failed"]),
    st.booleans(),
)  # fmt: skip
SERVICES = st.builds(
    Service, metas(["s", "t"]), st.sampled_from(["", "ExternalName"]), LABELS, ADDRESSES,
    st.sampled_from([(ServicePort("http", 80, "web"),), (ServicePort("http", 80, 81),)]), st.booleans(),
    st.just(""), st.booleans(), st.just(IpFamilies.AUTOMATIC),
)  # fmt: skip
ENDPOINTS = st.lists(
    st.builds(SliceEndpoint, ADDRESSES, st.booleans(), st.sampled_from(["", "p"]), st.booleans()), max_size=2
).map(tuple)
SLICES = st.builds(
    EndpointSlice,
    metas(["s-1", "s"]),
    st.sampled_from(["s", "t"]),
    st.just({"http": 9}),
    ENDPOINTS,
    st.booleans(),
)
MIRRORED = st.builds(
    lambda meta, *ones: Endpoints(
        meta, tuple(EndpointSlice(meta, meta.name, {"http": 7}, it) for it in ones)
    ),
    metas(["s", "t"]), ENDPOINTS, ENDPOINTS,
)  # fmt: skip
POLICIES = st.builds(
    AuthorizationPolicy, metas(["a", "b"]), st.sampled_from(["ALLOW", "DENY", "AUDIT"]), LABELS,
    st.sampled_from(
        [(), ("Gateway g", "Service s"), ("Service s", "Service s"), ("ServiceEntry e",), ("Gateway h",),
         ("GatewayClass ztunnel-waypoint",), ("GatewayClass istio-waypoint", "Service t")]
    ), st.sampled_from([(), (PolicyRule((), (), ()),)]),
)  # fmt: skip
PEERS = st.builds(
    PeerAuthentication, metas(["a", "b"]), LABELS, st.sampled_from(list(Mode)),
    st.sampled_from([{}, {80: Mode.STRICT}, {80: Mode.PERMISSIVE}]),
)  # fmt: skip
NAMESPACES = st.builds(
    lambda name, mode, other: Namespace(Meta(name, "", MODE if mode else {}, DISTRIBUTED if other else {})),
    SPACES, st.booleans(), st.booleans(),
)  # fmt: skip
NODES = st.builds(
    lambda name, zone: Node(Meta(name, "", {"topology.kubernetes.io/zone": zone}, {})),
    st.sampled_from(["n1", "n2"]), st.sampled_from(["", "z"]),
)  # fmt: skip
TUNNEL = {"networking.istio.io/tunnel": "http"}
INLINE = st.builds(
    lambda text, ports: EntryEndpoint(text, ip_address(text) if text[0] != "n" else None, ports, {}),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "192.0.2.1", "198.51.100.1", "name.example"]),
    st.sampled_from([{}, {"web": 7}]),
)  # fmt: skip
SERVICE_ENTRIES = st.builds(
    lambda meta, hosts, address, resolution, endpoints, selector: ServiceEntry(
        meta, hosts, tuple(map(ip_network, address)), (EntryPort("web", 80, 80),), resolution,
        endpoints=() if selector is not None else endpoints, selector=selector,
        allocated={"x.example": tuple(map(ip_address, address[1:]))} if endpoints else None,
    ),
    metas(["e", "f"], labels=st.sampled_from([{}, TUNNEL, {"app": "a"}])),
    st.sampled_from([("x.example",), ("x.example", "y.example"), ("s.one.svc.cluster.local",)]),
    st.sampled_from([(), ("10.0.0.1",), ("198.51.100.1",), ("198.51.100.1", "10.0.0.3")]),
    st.sampled_from([Resolution.NONE, Resolution.STATIC, Resolution.DNS]),
    st.lists(INLINE, max_size=2).map(tuple), st.sampled_from([None, {}, {"app": "a"}]),
)  # fmt: skip
WORKLOAD_ENTRIES = st.builds(
    lambda meta, endpoint: WorkloadEntry(meta, endpoint, meta.labels),
    metas(["w", "v"], labels=st.sampled_from([{"app": "a"}, {"app": "a", **TUNNEL}, {"app": "b", **TUNNEL}])),
    INLINE,
)  # fmt: skip
USING = st.sampled_from(
    [
        {}, {"istio.io/use-waypoint": "g"}, {"istio.io/use-waypoint": "none"},
        {"istio.io/use-waypoint": "g", "istio.io/use-waypoint-namespace": "two"},
        {"istio.io/use-waypoint": "h"},
    ]
)  # fmt: skip
GATEWAYS = st.builds(
    lambda meta, name, admits, port, addresses: Gateway(
        meta, name, (Listener(port, "HBONE", admits, LabelSelector({"istio.io/dataplane-mode": "ambient"})),),
        addresses,
    ),
    metas(["g", "h"], labels=st.sampled_from([{}, {"istio.io/waypoint-for": "all"}])),
    st.sampled_from(["ztunnel-waypoint", "istio-waypoint"]), st.sampled_from(["Same", "All", "Selector"]),
    st.sampled_from([15008, 80]),
    st.sampled_from([(), (("Hostname", "g.one"),), (("IPAddress", "10.0.0.2"),)]),
)  # fmt: skip
CLASSES = st.builds(
    lambda name, labels: GatewayClass(Meta(name, "", labels, {}), "x"),
    st.sampled_from(["ztunnel-waypoint", "istio-waypoint"]),
    st.sampled_from([{}, {"istio.io/waypoint-for": "workload"}]),
)
SERVING = st.builds(
    lambda meta, port: Service(
        meta, "", {}, (), (ServicePort("hbone", port, 15008),), False, "", False, IpFamilies.AUTOMATIC
    ),
    metas(["g", "s"], labels=st.sampled_from([{}, {"gateway.networking.k8s.io/gateway-name": "h"}])),
    st.sampled_from([15008, 80]),
)


def using(one, labels):
    return replace(one, meta=replace(one.meta, labels={**one.meta.labels, **labels}))


def using_entry(one, labels):
    return replace(using(one, labels), labels={**one.labels, **labels})


HOSTS = st.sampled_from(["s", "t", "s.one.svc.cluster.local", "x.example", "y.example", "nowhere"])
PATHS = st.sampled_from(["/", "/a", "/a/b"])
PARENTS = st.lists(
    st.builds(
        Reference, st.just(""), st.just("Service"), st.sampled_from(["", "one"]), st.sampled_from(["s", "t"]),
        st.sampled_from([0, 80, 81]),
    )
    | st.just(Reference("networking.istio.io", "ServiceEntry", "", "e")),
    max_size=2,
).map(tuple)  # fmt: skip
BACKENDS = st.lists(
    st.builds(
        Backend,
        st.sampled_from(
            [
                Reference("", "Service", "", "s", 80), Reference("", "Service", "two", "s", 80),
                Reference("", "Service", "", "t", 81),
                Reference("networking.istio.io", "ServiceEntry", "", "e", 80),
                Reference("networking.istio.io", "Hostname", "", "y.example", 80),
                Reference("", "Pod", "", "p", 1),
            ]
        ),
        st.integers(0, 2),
    ),
    max_size=2,
).map(tuple)  # fmt: skip
ROUTES = st.builds(
    lambda kind, meta, parents, path, backends: kind(
        meta, parents, (RouteRule("", (Match(path=TextMatch(TextKind.SEGMENTS, path)),), backends=backends),)
    ),
    st.sampled_from([HTTPRoute, GRPCRoute]), metas(["r", "q"]), PARENTS, PATHS, BACKENDS,
)  # fmt: skip
CONNECTION_ROUTES = st.builds(
    lambda kind, meta, parents, backends: kind(meta, parents, (BackendRule("", backends),)),
    st.sampled_from([TCPRoute, TLSRoute]), metas(["r", "q"]), PARENTS, BACKENDS,
)  # fmt: skip
TARGETS = st.lists(
    st.builds(
        WeightedTarget, st.builds(Target, HOSTS, st.sampled_from(["", "v1", "v2"]), st.sampled_from([0, 80])),
        st.integers(1, 2),
    ),
    min_size=1, max_size=2,
).map(tuple)  # fmt: skip
REQUEST_RULES = st.builds(
    lambda path, to, delegate: RequestRule(
        "n",
        (RequestMatch(Match(path=TextMatch(TextKind.PREFIX, path)), Sources({})),),
        () if delegate else to,
        delegate=delegate,
    ),
    PATHS, TARGETS, st.sampled_from([None, None, ("", "v"), ("two", "v")]),
)  # fmt: skip
VIRTUAL_SERVICES = st.builds(
    lambda meta, hosts, rules, export_to: VirtualService(
        meta, hosts, (), tuple(one for one in rules if hosts or not one.delegate),
        tuple(ConnectionRule((), one.targets) for one in rules if hosts and one.targets), (), export_to,
    ),
    metas(["v", "w"]),
    st.lists(st.one_of(HOSTS, st.sampled_from(["*", "*.example"])), max_size=2, unique=True).map(tuple),
    st.lists(REQUEST_RULES, min_size=1, max_size=2), st.sampled_from([(), (".",), ("one",)]),
)  # fmt: skip
TRAFFIC = st.sampled_from([UNSAID, PortTraffic(Traffic(Balancing(Balance.RANDOM)))])
RULES = st.builds(
    lambda meta, host, labels, traffic, export_to: DestinationRule(
        meta, host, (Subset("v1", labels, traffic),), traffic, export_to
    ),
    metas(["d", "f"]), st.one_of(HOSTS, st.sampled_from(["*", "*.svc.cluster.local"])), LABELS, TRAFFIC,
    st.sampled_from([(), (".",), ("two",)]),
)  # fmt: skip
GRANTS = st.builds(
    lambda meta, kind, space, name: ReferenceGrant(
        meta, (("gateway.networking.k8s.io", kind, space),), (("", "Service", name),)
    ),
    metas(["g"]), st.sampled_from(["HTTPRoute", "GRPCRoute"]), SPACES, st.sampled_from(["", "s"]),
)  # fmt: skip
ROUTING = st.one_of(ROUTES, CONNECTION_ROUTES, VIRTUAL_SERVICES, RULES, GRANTS)
OBJECTS = st.one_of(
    GATEWAYS, CLASSES, SERVING,
    st.builds(using, st.one_of(PODS, SERVICES, SERVICE_ENTRIES, NAMESPACES), USING),
    st.builds(using_entry, WORKLOAD_ENTRIES, USING),
    PODS, SERVICES, SLICES, MIRRORED, POLICIES, PEERS, NAMESPACES, NODES, SERVICE_ENTRIES, WORKLOAD_ENTRIES,
    ROUTING,
)  # fmt: skip


def batches_of(objects):
    return st.lists(st.lists(st.tuples(objects, st.integers(0, 4)), min_size=1, max_size=4), max_size=8)


BATCHES = batches_of(OBJECTS)


def state(translator):
    return (
        dict(translator.addresses),
        dict(translator.policies),
        dict(translator.routes),
        {url: dict(held) for url, held in translator.http.in_force.items() if held},
        translator.warnings(),
        dict(translator.refused),
    )


def inherited(objects):
    """Those whose waypoint, if any, is their namespace's: that is said of the namespace alone."""
    return {
        key for key, one in objects.items()
        if one is not None and not isinstance(one, AuthorizationPolicy)
        and "istio.io/use-waypoint" not in getattr(one, "labels", one.meta.labels)
    }  # fmt: skip


@settings(max_examples=40)
@given(BATCHES)
def test_any_way_to_a_set_of_objects_gives_its_translation(batches):
    gives_the_translation_of_all_at_once(batches)


@settings(max_examples=40)
@given(batches_of(st.one_of(ROUTING, ROUTING, SERVICES, st.builds(using, SERVICES, USING), GATEWAYS,
                            SERVING, SERVICE_ENTRIES)))  # fmt: skip
def test_any_way_to_a_set_of_routes_gives_its_translation(batches):
    gives_the_translation_of_all_at_once(batches)


def gives_the_translation_of_all_at_once(batches):
    translator, objects = Translator(SETTINGS), {}
    addresses, policies, routes, http, said = {}, {}, {}, {}, {}
    for batch in batches:
        changes = {key_of(one): None if gone == 0 else one for one, gone in batch}
        objects |= changes
        delta = translator.update(changes)
        pairs = (addresses, delta.addresses), (policies, delta.policies), (routes, delta.routes)
        for held, changed in (*pairs, *((http.setdefault(url, {}), one) for url, one in delta.http.items())):
            for name, new in changed.items():
                assert held.get(name) != new, "told without a change"
                held.pop(name) if new is None else held.update({name: new})
        now = {key: translator.said(key) for key in objects}
        told = {key for key in now if key in said and now[key] != said[key] and key not in changes}
        assert told <= delta.unsettled | inherited(objects), "nobody is told what is said now"
        said = now
    there = {key: one for key, one in sorted(objects.items()) if one is not None}
    served = translator.waypoints.served  # what is remembered of the way, over restarts too
    scratch = Translator(SETTINGS)
    scratch.waypoints.recall(served)
    scratch.update(there)
    assert state(translator) == state(scratch)
    assert (addresses, policies, routes) == (scratch.addresses, scratch.policies, scratch.routes)
    assert {url: held for url, held in http.items() if held} == state(scratch)[3]
    backwards = Translator(SETTINGS)
    for key, one in reversed(there.items()):
        backwards.waypoints.recall(served)
        backwards.update({key: one})
    assert state(backwards) == state(scratch)


def test_one_pods_change_converts_that_pod_and_nothing_else():
    def pod(name, ready=True):
        meta = Meta(name, "one", {"app": "a"}, {})
        return Pod(meta, "n1", "default", False, {}, (ip_address("10.0.0.1"),), "Running", ready)

    translator = Translator(SETTINGS)
    pods = [pod(f"p{number}") for number in range(50)]
    translator.update({key_of(one): one for one in pods})
    before = dict(translator.addresses)
    changed = replace(pods[7], ready=False)
    delta = translator.update({key_of(changed): changed})
    assert [name.rpartition("/")[2] for name in delta.addresses] == ["p7"]
    after = translator.addresses
    assert all(after[name] is one for name, one in before.items() if not name.endswith("/p7"))


def test_a_pod_that_is_evicted_and_loses_its_address_at_once_leaves_nothing_behind():
    """istio/istio#54997: the kubelet marks it failed and takes its address away in one update."""
    pod = Pod(Meta("p", "one", {"app": "a"}, {}), "n1", "default", False, {}, (IP,), "Running", True)
    service = Service(
        Meta("s", "one", {}, {}), "", {}, (), (ServicePort("http", 80, 8080),), False, "", False,
        IpFamilies.AUTOMATIC,
    )  # fmt: skip
    one = EndpointSlice(Meta("s-1", "one", {}, {}), "s", {"http": 9}, (SliceEndpoint((IP,), pod="p"),))
    translator = Translator(SETTINGS)
    translator.update({key_of(each): each for each in (pod, service, one)})
    assert "Kubernetes//Pod/one/p" in translator.addresses
    evicted = replace(pod, phase="Failed", addresses=(), ready=False)
    translator.update({key_of(evicted): evicted})
    assert "Kubernetes//Pod/one/p" not in translator.addresses
    heir = replace(pod, meta=Meta("q", "one", {"app": "b"}, {}), service_account="other")
    translator.update({key_of(heir): heir})
    (workload,) = (each for each in translator.addresses.values() if isinstance(each, Workload))
    assert (workload.name, workload.service_account) == ("q", "other")
    assert [str(name) for name in workload.services] == ["one/s.one.svc.cluster.local"]


def test_one_entrys_change_converts_what_it_can_touch_and_nothing_else():
    def workload(name, namespace, address):
        labels = {"app": name[0]}
        endpoint = EntryEndpoint(address, ip_address(address), {}, {})
        return WorkloadEntry(Meta(name, namespace, labels, {}), endpoint, labels)

    def entry(name, host, selector):
        ports = (EntryPort("web", 80, 80),)
        return ServiceEntry(
            Meta(name, "one", {}, {}), (host,), (), ports, Resolution.STATIC, selector=selector
        )

    translator = Translator(SETTINGS)
    workloads = [workload(f"{'ab'[n % 2]}{n}", "one", f"192.0.2.{n}") for n in range(40)]
    entries = [entry("a", "a.example", {"app": "a"}), entry("b", "b.example", {"app": "b"})]
    translator.update({key_of(one): one for one in (*workloads, *entries)})
    before = dict(translator.addresses)
    changed = replace(entries[0], ports=(EntryPort("web", 80, 81),))
    delta = translator.update({key_of(changed): changed})
    assert {name.rpartition("/")[2][0] for name in delta.addresses} == {"a"}
    assert len(delta.addresses) == 21
    assert all(translator.addresses[name] is before[name] for name in before if name not in delta.addresses)
    moved = workload("b1", "one", "192.0.2.200")
    assert len(translator.update({key_of(moved): moved}).addresses) == 1


def test_a_gateway_that_goes_leaves_what_names_it_refused_until_the_label_goes():
    named = {"istio.io/use-waypoint": "g"}
    gateway = Gateway(Meta("g", "one", {"istio.io/waypoint-for": "all"}, {}), "istio-waypoint",
                      (Listener(15008, "HBONE"),), (("Hostname", "g.one.svc"),))  # fmt: skip
    pod = Pod(Meta("p", "one", named, {}), "n1", "default", False, {}, (IP,), "Running", True)
    entry = ServiceEntry(Meta("e", "one", named, {}), ("a.example",), (), (EntryPort("web", 80, 80),),
                         Resolution.STATIC)  # fmt: skip
    translator = Translator(SETTINGS)
    translator.update({key_of(one): one for one in (gateway, pod, entry)})
    names = ("Kubernetes//Pod/one/p", "one/a.example")
    before = [translator.addresses[name].waypoint for name in names]
    assert [one.service.hostname for one in before] == ["g.one.svc"] * 2
    delta = translator.update({key_of(gateway): None})
    assert delta.addresses.keys() == {*names}
    assert [translator.addresses[name].waypoint.service.hostname for name in names] == [
        "g.one.svc.cluster.local"
    ] * 2
    late = replace(pod, meta=Meta("late", "one", named, {}))
    translator.update({key_of(late): late})
    assert translator.addresses["Kubernetes//Pod/one/late"].waypoint is not None
    plain = [replace(one, meta=replace(one.meta, labels={})) for one in (pod, late, entry)]
    translator.update({key_of(one): one for one in plain})
    assert [translator.addresses[name].waypoint for name in names] == [None, None]
    translator.update({key_of(one): one for one in (pod, entry)})
    assert [translator.addresses[name].waypoint for name in names] == [None, None]  # forgotten with the label


def test_an_entry_with_policies_for_its_waypoint_is_refused_until_that_is_there():
    named = {"istio.io/use-waypoint": "g"}
    entry = ServiceEntry(Meta("e", "one", named, {}), ("a.example",), (), (EntryPort("web", 80, 80),),
                         Resolution.STATIC)  # fmt: skip
    policy = AuthorizationPolicy(Meta("p", "one", {}, {}), "DENY", {}, ("ServiceEntry e",), ())
    translator = Translator(SETTINGS)
    translator.update({key_of(entry): entry})
    assert translator.addresses["one/a.example"].waypoint is None
    translator.update({key_of(policy): policy})
    assert translator.addresses["one/a.example"].waypoint is not None
    assert "calls are refused" in translator.said(key_of(entry)).binding.message
    bound = replace(entry, bound="one/g")
    later = Translator(SETTINGS)
    later.update({key_of(bound): bound})
    assert later.addresses["one/a.example"].waypoint is not None


def test_that_ingress_uses_the_waypoint_is_said_also_across_namespaces():
    named = {"istio.io/use-waypoint": "g", "istio.io/use-waypoint-namespace": "two"}
    gateway = Gateway(Meta("g", "two", {}, {}), "istio-waypoint",
                      (Listener(15008, "HBONE", "All"),), (("Hostname", "g.two.svc"),))  # fmt: skip
    space = Namespace(Meta("one", "", {"istio.io/ingress-use-waypoint": "true"}, {}))
    service = Service(Meta("s", "one", named, {}), "", {}, (ip_address("10.9.0.1"),),
                      (ServicePort("http", 80, 80),), False, "", False, IpFamilies.AUTOMATIC)  # fmt: skip
    entry = ServiceEntry(Meta("e", "one", named, {}), ("a.example",), (ip_network("198.51.100.1"),),
                         (EntryPort("web", 80, 80),), Resolution.STATIC)  # fmt: skip
    translator = Translator(SETTINGS)
    translator.update({key_of(one): one for one in (gateway, space, service, entry)})
    for name, one in (("one/s.one.svc.cluster.local", service), ("one/a.example", entry)):
        assert translator.addresses[name].ingress_uses_waypoint
        condition = wanted(one, (), SETTINGS, translator.said(key_of(one)))[-1]
        assert condition.message == (
            "Successfully attached to waypoint two/g. Ingress traffic will traverse the waypoint"
        )
    delta = translator.update({key_of(space): replace(space, meta=replace(space.meta, labels={}))})
    assert {key_of(service), key_of(entry)} <= delta.unsettled
    assert not translator.addresses["one/a.example"].ingress_uses_waypoint


def test_what_is_attached_and_has_no_address_says_that_calls_go_past():
    """istio/istio#54981: it is shown as attached, and nothing goes through its waypoint."""
    named = {"istio.io/use-waypoint": "g"}
    gateway = Gateway(Meta("g", "one", {}, {}), "istio-waypoint",
                      (Listener(15008, "HBONE"),), (("Hostname", "g.one.svc"),))  # fmt: skip
    headless = Service(Meta("s", "one", named, {}), "", {"app": "s"}, (), (ServicePort("http", 80, 80),),
                       False, "", False, IpFamilies.AUTOMATIC)  # fmt: skip
    entry = ServiceEntry(Meta("e", "one", named, {}), ("a.example",), (), (EntryPort("web", 80, 80),),
                         Resolution.STATIC)  # fmt: skip
    translator = Translator(SETTINGS)
    translator.update({key_of(one): one for one in (gateway, headless, entry)})
    for one in (headless, entry):
        condition = wanted(one, (), SETTINGS, translator.said(key_of(one)))[-1]
        assert condition.message.endswith(". It has no address: calls go to its endpoints, past the waypoint")
    addressed = replace(entry, addresses=(ip_network("198.51.100.1"),))
    translator.update({key_of(addressed): addressed})
    condition = wanted(addressed, (), SETTINGS, translator.said(key_of(addressed)))[-1]
    assert condition.message == "Successfully attached to waypoint one/g"
