"""What a kubelet's names say, and what is known of its pods."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.pods.kubelet import (
    LINGER_SECONDS,
    Place,
    PodCgroup,
    PodName,
    Sightings,
    is_kubepods,
    is_qos,
    parse_log_directory,
    uid_of_cgroup,
)

UID = "0e78bcdb-6e71-431e-8d20-ca38798ff247"
ESCAPED = UID.replace("-", "_")
STATIC = "24dc7a2d6a6a8a8a1a2a3a4a5a6a7a8a"
WEB = PodName("shop", "web")

CGROUPS = [
    (f"pod{UID}", UID),
    (f"pod{STATIC}", STATIC),
    (f"kubepods-pod{ESCAPED}.slice", UID),
    (f"kubepods-burstable-pod{ESCAPED}.slice", UID),
    (f"kubepods-besteffort-pod{STATIC}.slice", STATIC),
    (f"kubelet-kubepods-besteffort-pod{ESCAPED}.slice", UID),
    ("kubepods", ""),
    ("kubepods.slice", ""),
    ("kubepods-burstable.slice", ""),
    ("burstable", ""),
    ("podruntime", ""),
    ("podman-1234.scope", ""),
    (f"cri-containerd-{'0' * 64}.scope", ""),
    ("0" * 64, ""),
    (f"pod{UID}.scope", ""),
    ("pod", ""),
    ("", ""),
]


@pytest.mark.parametrize(("name", "uid"), CGROUPS)
def test_the_cgroup_of_a_pod_has_its_uid_in_its_name(name: str, uid: str) -> None:
    assert uid_of_cgroup(name) == uid


@given(st.text(max_size=80) | st.from_regex(r"(x-)?pod[0-9a-f_-]{0,40}(\.slice)?", fullmatch=True))
def test_any_name_may_be_met_below_kubepods(name: str) -> None:
    uid = uid_of_cgroup(name)
    assert uid.replace("-", "") in name.replace("_", "").replace("-", "")
    found = parse_log_directory(name)
    assert found is None or "_".join((*found[1], found[0])) == name


@pytest.mark.parametrize(
    ("name", "kubepods", "qos"),
    [
        ("kubepods", True, False),
        ("kubepods.slice", True, False),
        ("kubelet-kubepods.slice", True, False),
        ("burstable", False, True),
        ("besteffort", False, True),
        ("kubepods-besteffort.slice", False, True),
        ("kubelet-kubepods-burstable.slice", False, True),
        (f"kubepods-burstable-pod{ESCAPED}.slice", False, False),
        ("kubepodsx", False, False),
        ("system.slice", False, False),
    ],
)
def test_what_pods_are_below_is_known_by_its_name(name: str, kubepods: bool, qos: bool) -> None:
    assert (is_kubepods(name), is_qos(name)) == (kubepods, qos)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"shop_web_{UID}", (UID, WEB)),
        (f"kube-system_etcd-n1_{STATIC}", (STATIC, PodName("kube-system", "etcd-n1"))),
        (f"shop_web.0_{UID}", (UID, PodName("shop", "web.0"))),
        ("lost+found", None),
        ("shop_web", None),
        (f"shop_web_{UID}_x", None),
        ("__", None),
    ],
)
def test_a_log_directory_names_pod_and_uid(name: str, found: object) -> None:
    assert parse_log_directory(name) == found


def known(*pods: tuple[str, PodName]) -> Sightings:
    sightings = Sightings()
    sightings.name(dict(pods))
    sightings.only({uid: PodCgroup(f"/c/{uid}", number) for number, (uid, _) in enumerate(pods, 1)})
    return sightings


def test_a_pod_is_where_its_processes_are() -> None:
    sightings = known(("u1", WEB), ("u2", PodName("shop", "db")))
    assert sightings.places(WEB) == []
    assert sightings.see("u1", {7: "/proc/1/ns/net"}, 0.0)
    place = Place("/proc/1/ns/net", 7, "u1")
    assert sightings.places(WEB) == [place]
    assert sightings.places(WEB, "u1") == [place]
    assert sightings.places(WEB, "u2") == []
    assert sightings.places(PodName("shop", "db")) == []
    assert sightings.holds(place)
    assert not sightings.see("u1", {7: "/proc/1/ns/net"}, 1.0)
    assert sightings.see("u1", {7: "/proc/2/ns/net"}, 1.0)
    assert sightings.places(WEB) == [Place("/proc/2/ns/net", 7, "u1")]
    assert not sightings.see("gone", {7: "/proc/1/ns/net"}, 1.0)


def test_a_namespace_that_nobody_is_in_any_more_stays_the_pods_for_a_moment() -> None:
    """A container of CRI-O is started again in it."""
    sightings = known(("u1", WEB))
    sightings.see("u1", {7: "/a"}, 0.0)
    assert sightings.leaving() == {}
    place = sightings.places(WEB)[0]
    assert not sightings.see("u1", {}, 10.0)
    assert sightings.leaving() == {"u1": 10.0 + LINGER_SECONDS}
    assert sightings.holds(place)
    assert sightings.places(WEB) == [place]
    assert not sightings.see("u1", {7: "/a"}, 11.0)
    assert sightings.leaving() == {}
    sightings.see("u1", {}, 20.0)
    assert not sightings.see("u1", {}, 20.0 + LINGER_SECONDS - 0.1)
    assert sightings.see("u1", {}, 20.0 + LINGER_SECONDS)
    assert not sightings.holds(place)
    assert sightings.places(WEB) == []


def test_a_new_sandbox_of_the_same_pod_counts_at_once() -> None:
    sightings = known(("u1", WEB))
    sightings.see("u1", {7: "/a"}, 0.0)
    old = sightings.places(WEB)[0]
    assert sightings.see("u1", {8: "/b"}, 1.0)
    assert sightings.places(WEB) == [Place("/b", 8, "u1")]
    assert sightings.holds(old)
    assert sightings.see("u1", {8: "/b"}, 1.0 + LINGER_SECONDS)
    assert not sightings.holds(old)


def test_a_namespace_began_with_the_first_process_that_was_seen_in_it() -> None:
    """A runtime's own ends when the sandbox's has begun; each sandbox has its own time."""
    sightings = known(("u1", WEB))
    for began, seen in ((5.0, 5.0), (3.0, 3.0), (9.0, 3.0)):
        sightings.see("u1", {7: "/a"}, 0.0, {7: began})
        assert sightings.places(WEB)[0].began == seen
    assert sightings.places(WEB)[0].began == 3.0
    sightings.see("u1", {}, 10.0)
    assert sightings.places(WEB)[0].began == 3.0
    sightings.see("u1", {8: "/b"}, 11.0, {8: 20.0})
    assert sightings.places(WEB)[0].began == 20.0


def test_a_pod_without_a_cgroup_holds_nothing() -> None:
    sightings = known(("u1", WEB))
    sightings.see("u1", {7: "/a"}, 0.0)
    place = sightings.places(WEB)[0]
    assert sightings.has_cgroup(WEB)
    assert not sightings.has_cgroup(WEB, "u2")
    assert sightings.only({})
    assert not sightings.only({})
    assert not sightings.holds(place)
    assert sightings.places(WEB) == []
    assert not sightings.has_cgroup(WEB)


def test_a_cgroup_that_was_made_anew_is_another_one() -> None:
    sightings = known(("u1", WEB))
    sightings.see("u1", {7: "/a"}, 0.0)
    assert not sightings.only({"u1": PodCgroup("/c/u1", 1)})
    assert sightings.places(WEB)
    assert sightings.only({"u1": PodCgroup("/c/u1", 9)})
    assert sightings.places(WEB) == []
    assert sightings.cgroups == {"u1": PodCgroup("/c/u1", 9)}


def test_a_pod_with_the_name_of_another_is_told_apart_by_its_uid() -> None:
    """web-0 was force-deleted and still runs, while its successor starts."""
    sightings = known(("old", WEB), ("new", WEB))
    sightings.see("old", {7: "/a"}, 0.0)
    sightings.see("new", {8: "/b"}, 0.0)
    assert {place.inode for place in sightings.places(WEB)} == {7, 8}
    assert sightings.places(WEB, "new") == [Place("/b", 8, "new")]
    assert sorted(sightings.uids(WEB)) == ["new", "old"]


def test_a_cgroup_without_a_log_directory_is_nobodys() -> None:
    """No name, no identity: a cgroup's name alone proves nothing."""
    sightings = Sightings()
    assert sightings.name({"u1": WEB})
    assert not sightings.name({"u1": WEB})
    sightings.only({"u2": PodCgroup("/c/u2", 2)})
    sightings.see("u2", {7: "/a"}, 0.0)
    assert sightings.places(WEB, "u2") == []
