"""Whatever the way to a set of objects, in whatever steps, its translation is that of all at once."""

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.control.document import key_of
from ztunnel.control.settings import MeshSettings
from ztunnel.control.translation import Translator
from ztunnel.model.service import IpFamilies
from ztunnel.model.workload import Workload
from ztunnel.state.endpoints import Endpoints, EndpointSlice, SliceEndpoint
from ztunnel.state.istio import AuthorizationPolicy, Mode, PeerAuthentication, PolicyRule
from ztunnel.state.kube import Namespace, Node, Pod, Service, ServicePort
from ztunnel.state.meta import Meta

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
    st.sampled_from([(), ("Gateway x",)]), st.sampled_from([(), (PolicyRule((), (), ()),)]),
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
OBJECTS = st.one_of(PODS, SERVICES, SLICES, MIRRORED, POLICIES, PEERS, NAMESPACES, NODES)
BATCHES = st.lists(st.lists(st.tuples(OBJECTS, st.integers(0, 4)), min_size=1, max_size=4), max_size=8)


def state(translator):
    return dict(translator.addresses), dict(translator.policies), translator.warnings()


@settings(max_examples=40)
@given(BATCHES)
def test_any_way_to_a_set_of_objects_gives_its_translation(batches):
    translator, objects = Translator(SETTINGS), {}
    addresses, policies = {}, {}
    for batch in batches:
        changes = {key_of(one): None if gone == 0 else one for one, gone in batch}
        objects |= changes
        delta = translator.update(changes)
        for held, changed in ((addresses, delta.addresses), (policies, delta.policies)):
            for name, new in changed.items():
                assert held.get(name) != new, "told without a change"
                held.pop(name) if new is None else held.update({name: new})
    there = {key: one for key, one in sorted(objects.items()) if one is not None}
    scratch = Translator(SETTINGS)
    scratch.update(there)
    assert state(translator) == state(scratch)
    assert (addresses, policies) == (scratch.addresses, scratch.policies)
    backwards = Translator(SETTINGS)
    for key, one in reversed(there.items()):
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
