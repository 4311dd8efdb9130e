"""Pods that join and leave the mesh, come and go, while everything else goes on."""

from __future__ import annotations

import pytest

from tests.mesh import lab
from tests.mesh.lab import Load, Mesh, read_exactly, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MODE = "istio.io/dataplane-mode"
CANARY = b"a canary that nobody on the link may read"
MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("fresh", ambient=False)
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("shop/near", "node-1")
    + lab.pod("fresh/one", "node-1")
    + lab.pod("fresh/two", "node-2")
    + lab.service("shop/called", "called")
)


def is_tunnelled(mesh: Mesh, where: str, to: str) -> bool:
    """Whether a call from one to the other node goes by HBONE; it works either way."""
    listener = mesh.listen(to)
    with mesh.laboratory.capture() as link:
        client, server = mesh.join(where, listener, mesh.address(to))
        client.sendall(CANARY)
        assert read_exactly(server, len(CANARY)) == CANARY
        readable = link.holds(CANARY)
    client.close()
    server.close()
    return not readable


def active(mesh: Mesh, node: str) -> float:
    return mesh.figures(node).total("workload_manager_active_proxy_count")


def enrolled(mesh: Mesh, node: str, count: int) -> None:
    wait_until(lambda: active(mesh, node) == count, f"{count} pods of {node} are in the mesh")


def test_labelling_a_namespace_enrolls_its_running_pods_and_removes_them(mesh: Mesh) -> None:
    assert not is_tunnelled(mesh, "fresh/one", "fresh/two")
    mesh.label("namespace", "fresh", {MODE: "ambient"})
    enrolled(mesh, "node-1", 3)
    enrolled(mesh, "node-2", 2)
    assert is_tunnelled(mesh, "fresh/one", "fresh/two")
    assert is_tunnelled(mesh, "shop/caller", "fresh/two")
    assert is_tunnelled(mesh, "fresh/one", "shop/called")
    mesh.label("namespace", "fresh", {MODE: None})
    enrolled(mesh, "node-1", 2)
    enrolled(mesh, "node-2", 1)
    assert not is_tunnelled(mesh, "fresh/one", "fresh/two")
    assert not is_tunnelled(mesh, "shop/caller", "fresh/two")
    assert not is_tunnelled(mesh, "fresh/one", "shop/called")
    for message, node, name in (("pod enrolled", "node-1", "one"), ("pod withdrawn", "node-2", "two")):
        wait_until(
            lambda message=message, node=node, name=name: [
                line for line in mesh.find_lines(node, message=message) if name in line["pod"]
            ],
            f"{message}: {name}",
        )


def test_a_pods_own_label_wins_over_its_namespaces(mesh: Mesh) -> None:
    mesh.label("pod", "shop/caller", {MODE: "none"})
    enrolled(mesh, "node-1", 1)
    assert not is_tunnelled(mesh, "shop/caller", "shop/called")
    mesh.label("pod", "shop/caller", {MODE: None})
    enrolled(mesh, "node-1", 2)
    assert is_tunnelled(mesh, "shop/caller", "shop/called")


def test_connections_from_before_and_from_within_live_through_both_changes(mesh: Mesh) -> None:
    calls = {}
    pairs = [("fresh/one", "fresh/two"), ("fresh/one", "shop/called"), ("shop/caller", "fresh/two")]
    pairs += [("shop/near", "fresh/one"), ("fresh/one", "shop/near")]

    def call_all(when: str) -> None:
        for where, to in pairs:
            calls[when, where, to] = mesh.call(where, mesh.address(to), 8080)

    def all_answer() -> None:
        assert [key for key, call in calls.items() if not call.answers()] == []

    call_all("before")
    all_answer()
    mesh.label("namespace", "fresh", {MODE: "ambient"})
    enrolled(mesh, "node-2", 2)
    enrolled(mesh, "node-1", 3)
    all_answer()
    outside = mesh.figures("node-1").total("ztunnel_connections_outside_mesh", pod="one")
    assert outside == 4, "two out, and one in and one out with near"
    call_all("within")
    all_answer()
    mesh.label("namespace", "fresh", {MODE: None})
    enrolled(mesh, "node-2", 1)
    enrolled(mesh, "node-1", 2)
    all_answer()
    call_all("after")
    all_answer()
    # Longer than the moment for which a pod that was removed is still answered.
    wait_until(lambda: not listens(mesh, "fresh/two", 15008), "the listeners are gone")
    wait_until(lambda: not listens(mesh, "fresh/one", 15008), "the listeners are gone")
    all_answer()


def test_no_call_fails_while_pods_join_and_leave(mesh: Mesh) -> None:
    pairs = [("shop/caller", "fresh/two"), ("shop/caller", "fresh/one"), ("fresh/one", "shop/called")]
    pairs += [("fresh/one", "fresh/two"), ("fresh/two", "shop/caller")]
    with Load(mesh, pairs, lab.TCP_FAMILIES) as load:
        for mode in ("ambient", None, "ambient", None):
            mesh.label("namespace", "fresh", {MODE: mode})
            enrolled(mesh, "node-1", 3 if mode else 2)
            enrolled(mesh, "node-2", 2 if mode else 1)
            wanted = load.answered + 100
            wait_until(lambda wanted=wanted: load.answered > wanted, "calls in between")
    assert load.failed() == []


def listens(mesh: Mesh, where: str, port: int) -> bool:
    """Whether somebody in the pod's namespace has that port."""
    sock = mesh.socket(where)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        return True
    sock.close()
    return False


def test_a_pod_is_added_at_run_time_and_served_at_once(mesh: Mesh) -> None:
    late = lab.pod("shop/late", "node-2", labels="version: v1").replace("app: late", "app: called")
    mesh.apply(late)
    enrolled(mesh, "node-2", 2)
    assert is_tunnelled(mesh, "shop/caller", "shop/late")
    vip = mesh.laboratory.service("shop/called").addresses[0]
    pods = {ask(mesh, "shop/caller", vip) for _ in range(30)}
    assert pods == {"called", "late"}
    mesh.apply(late, delete=True)
    enrolled(mesh, "node-2", 1)
    assert {ask(mesh, "shop/caller", vip) for _ in range(10)} == {"called"}


def ask(mesh: Mesh, where: str, vip: object) -> str:
    """Which pod answers."""
    sock = mesh.connect(where, vip, 80)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = lab.read_all(sock).decode()
    return answer.partition('"pod": "')[2].partition('"')[0]


def test_a_pod_that_goes_ends_its_connections_and_nobody_elses(mesh: Mesh) -> None:
    text = lab.pod("shop/brief", "node-2")
    mesh.apply(text)
    enrolled(mesh, "node-2", 2)
    brief = mesh.call("shop/caller", mesh.address("shop/brief"), 8080)
    stays = mesh.call("shop/caller", mesh.address("shop/called"), 8080)
    assert brief.answers()
    assert stays.answers()
    mesh.apply(text, delete=True)
    enrolled(mesh, "node-2", 1)
    assert brief.refused
    assert stays.answers()
    for node in ("node-1", "node-2"):
        assert "Traceback" not in "\n".join(line["text"] for line in mesh.lines(node))


def test_a_pod_that_is_replaced_under_its_name_is_another_pod(mesh: Mesh) -> None:
    mesh.apply(lab.pod("shop/twice", "node-2"))
    enrolled(mesh, "node-2", 2)
    assert is_tunnelled(mesh, "shop/caller", "shop/twice")
    first = mesh.address("shop/twice")
    mesh.apply(lab.pod("shop/twice", "node-2", account="other"))
    assert mesh.address("shop/twice") != first
    enrolled(mesh, "node-2", 2)
    listener = mesh.listen("shop/twice")
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/twice"))
    client.close()
    server.close()
    own = lab.Endpoint(lab.ip_address(mesh.address("shop/twice")), 15008)
    line = wait_until(lambda: mesh.find_lines("node-1", dst_addr=own), "the line")[-1]
    assert line["dst.identity"] == lab.account("shop/other")
    mesh.apply(lab.pod("shop/twice", "node-2"), delete=True)
    enrolled(mesh, "node-2", 1)


def test_a_pod_that_takes_a_port_of_ours_is_said_to_be_pending_and_enrolled_once_it_lets_go(
    mesh: Mesh,
) -> None:
    wait_until(lambda: not listens(mesh, "fresh/one", 15008), "nobody has it")
    taken = mesh.listen("fresh/one", port=15008)
    mesh.label("namespace", "fresh", {MODE: "ambient"})
    enrolled(mesh, "node-2", 2)
    names = mesh.laboratory.names

    def said() -> tuple[int, str]:
        return lab.fetch(names.netns(names.node("node-1")), 15021, "/healthz/ready", {})

    wait_until(lambda: "port 15008 is taken" in said()[1], "it is told")
    assert "fresh/one" in said()[1]
    assert said()[0] == 200, "it costs only itself"
    sink = mesh.listen("fresh/one", port=8081)
    for family in lab.TCP_FAMILIES:
        # Neither out of it nor into it, from whoever is in the mesh or not, in plaintext or otherwise.
        assert mesh.call("fresh/one", mesh.address("shop/called", family), 8080).error is not None
        for caller in ("shop/caller", "shop/called", "node-2"):
            assert mesh.call(caller, mesh.address("fresh/one", family), sink.port).refused
            assert mesh.call(caller, mesh.address("fresh/one", family), 15008).refused
    assert sink.nobody()
    assert taken.nobody()
    figures = mesh.figures("node-1")
    assert figures.total("workload_manager_pending_proxy_count") == 1
    assert figures.total("ztunnel_pods_pending", namespace="fresh", pod="one", reason="port taken") == 1
    taken.sock.close()
    enrolled(mesh, "node-1", 3)
    assert "15008" not in said()[1]
    mesh.label("namespace", "fresh", {MODE: None})
    enrolled(mesh, "node-1", 2)


def test_no_process_of_a_new_pod_runs_before_it_is_in_the_mesh(mesh: Mesh) -> None:
    text = lab.pod("shop/eager", "node-2").replace(
        "{name: main,", "{name: main, command: [sh, -c, 'date -u +%Y-%m-%dT%H:%M:%S.%6NZ; sleep 60'],"
    )
    mesh.apply(text)
    begun = wait_until(lambda: mesh.laboratory.pod_log("shop/eager").partition("\n")[0], "it has begun")
    enrolled_at = mesh.find_lines("node-2", message="pod enrolled", pod="shop/eager")[0]["text"][:27]
    assert enrolled_at < begun
    mesh.apply(text, delete=True)


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
