from dataclasses import replace
from ipaddress import ip_address

from ztunnel.demo.cluster import Cluster, Node, Pod, Service, ServicePort
from ztunnel.demo.proxy_rules import hosts, rules
from ztunnel.model.address import Endpoint

V4, V6 = ip_address("10.96.0.10"), ip_address("fd00:96::a")
POD_V4, POD_V6 = ip_address("10.244.1.2"), ip_address("fd00:244:1::2")
ENDS = (Endpoint(POD_V4, 8080), Endpoint(POD_V6, 8080), Endpoint(ip_address("10.244.2.2"), 8081))
WEB = Service("t", "web", (V4, V6), (ServicePort(80, ENDS),))
POD = Pod("t", "a", "uid", Node("n1", 1), (POD_V4, POD_V6), (), {}, {})
AWAY = replace(POD, namespace="other", name="z", addresses=(ip_address("10.244.2.9"),))


def seen_by(pod: Pod, *services: Service) -> list[str]:
    return seen((POD, AWAY), services)[pod.name].splitlines()


def seen(pods: tuple[Pod, ...], services: tuple[Service, ...]) -> dict[str, str]:
    return {pod.name: text for pod, text in hosts(Cluster((), pods, services, ()))}


def test_each_family_is_translated_to_its_own_endpoints() -> None:
    text = rules([WEB], [POD])
    assert (
        "ip daddr 10.96.0.10 tcp dport 80 dnat ip to numgen random mod 2 "
        "map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8081 }" in text
    )
    assert (
        "ip6 daddr fd00:96::a tcp dport 80 dnat ip6 to numgen random mod 1 map { 0 : fd00:244:1::2 . 8080 }"
        in text
    )


def test_an_address_without_endpoints_is_reset_and_not_translated() -> None:
    text = rules([Service("t", "web", (V4,), (ServicePort(80, ()),))], [])
    assert "dnat" not in text
    assert "ip daddr 10.96.0.0/16 meta l4proto tcp reject with tcp reset" in text


def test_a_pod_that_draws_itself_is_masqueraded() -> None:
    assert "ip saddr . ip daddr { 10.244.1.2 . 10.244.1.2 } masquerade" in rules([WEB], [POD])
    assert "masquerade" not in rules([WEB], [])


def test_a_service_has_its_short_name_only_at_home() -> None:
    assert "10.96.0.10 web.t.svc.cluster.local web.t web.t.svc web" in seen_by(POD, WEB)
    assert "fd00:96::a web.t.svc.cluster.local web.t web.t.svc" in seen_by(AWAY, WEB)


def test_a_pod_knows_itself_by_its_name() -> None:
    assert {f"{POD_V4} a", f"{POD_V6} a"} <= set(seen_by(POD))
    assert "10.244.2.9 z" in seen_by(AWAY)
    assert "10.244.2.9 z" not in seen_by(POD)


def test_the_name_of_a_headless_service_means_its_pods() -> None:
    found = seen_by(POD, Service("t", "db", (), (ServicePort(80, ENDS),)))
    assert [line.split()[0] for line in found if "db.t" in line] == [str(end.ip) for end in ENDS]


def test_a_headless_service_names_its_pods_one_by_one() -> None:
    db = Service("t", "db", (), (ServicePort(80, ENDS), ServicePort(81, ENDS)))
    member = replace(POD, name="db-0", hostname="db-0", subdomain="db")
    found = seen((member, AWAY), (db,))
    full = "db-0.db.t.svc.cluster.local db-0.db.t db-0.db.t.svc"
    assert f"{POD_V4} {full} db-0.db db-0" in found["db-0"].splitlines()
    assert f"{POD_V6} {full}" in found["z"].splitlines()
    stranger = replace(member, subdomain="other")
    assert full not in seen((stranger, AWAY), (db,))["z"]
