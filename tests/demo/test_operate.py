import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from ztunnel.demo import find, run
from ztunnel.demo.command import PROGRAM
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import BUNDLED, Laboratory
from ztunnel.errors import ConfigError

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

CURL = ("curl", "-sS", "-m", "3")
COUNTER = """
import collections, http.client
seen = collections.Counter()
for _ in range(40):
    connection = http.client.HTTPConnection("web", 80, timeout=3)
    connection.request("GET", "/")
    seen[connection.getresponse().read().split(b'"')[3].decode()] += 1
print(*sorted(seen))
"""


def answer(laboratory: Laboratory, pod: str, url: str) -> dict[str, object]:
    done = laboratory.exec(pod, [*CURL, url])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def left(name: str) -> list[str]:
    """Everything on the machine that bears the laboratory's name."""
    found = [*Path("/run/netns").glob(f"zt-{name}-*"), *Path("/run/ztunnel").glob(f"*{name}*")]
    found += [path for path in Path("/sys/fs/cgroup").rglob(f"ztunnel-{name}") if path.is_dir()]
    for process in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            # A killed orphan is a zombie until the machine's first process has looked.
            alive = ") Z " not in (process.parent / "stat").read_text()
            found += [process] if alive and f"ztunnel-{name}/" in process.read_text() else []
        except OSError:
            continue
    return list(map(str, found))


@pytest.mark.parametrize("family", [IPv4Address, IPv6Address])
@pytest.mark.parametrize("target", ["near", "far"])
def test_plain_pods_reach_each_other_and_see_true_addresses(
    standing: Laboratory, target: str, family: type[IPv4Address] | type[IPv6Address]
) -> None:
    caller, called = standing.pod("caller").address(family), standing.pod(target).address(family)
    url = f"http://[{called}]:8080/" if called.version == 6 else f"http://{called}:8080/"
    found = answer(standing, "caller", url)
    assert found["pod"] == target
    assert str(found["caller"]).rpartition(":")[0].strip("[]") == str(caller)
    assert str(found["called"]).rpartition(":")[0].strip("[]") == str(called)


def test_a_virtual_address_reaches_all_endpoints_in_both_families(standing: Laboratory) -> None:
    for address in standing.service("t/web").addresses:
        url = f"http://[{address}]/" if address.version == 6 else f"http://{address}/"
        assert {answer(standing, "caller", url)["pod"] for _ in range(12)} == {"near", "far"}


def test_a_pod_that_is_its_own_endpoint_reaches_itself(standing: Laboratory) -> None:
    assert standing.exec("near", [sys.executable, "-c", COUNTER]).stdout.split() == ["far", "near"]


def test_a_node_reaches_pods_and_virtual_addresses(standing: Laboratory) -> None:
    for url in (
        f"http://{standing.pod('far').addresses[0]}:8080/",
        f"http://{standing.service('t/web').addresses[0]}/",
    ):
        assert '"pod"' in standing.exec_node("node-1", [*CURL, url]).stdout
    cgroup = standing.exec_node("node-1", ["cat", "/proc/self/cgroup"]).stdout
    assert f"/ztunnel-{standing.names.lab}/node-1/kubelet\n" in cgroup


def test_a_command_in_a_pod_has_its_files_its_cgroup_and_its_exit_status(standing: Laboratory) -> None:
    script = "cat; hostname; getent hosts web.t; grep -o 'kubepods/pod.*' /proc/self/cgroup; exit 7"
    done = standing.exec("caller", ["sh", "-c", script], input="said\n")
    assert done.returncode == 7
    lines = done.stdout.split("\n")
    assert lines[:2] == ["said", "caller"]
    assert "web.t.svc.cluster.local" in lines[2]
    assert lines[3] == f"kubepods/pod{standing.pod('caller').uid}"


def test_a_service_without_endpoints_refuses_at_once(plain: Laboratory) -> None:
    plain.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: empty, namespace: t}\nspec: {ports: [{port: 80}]}\n"
    )
    begun = time.monotonic()
    done = plain.exec("caller", [*CURL, "http://empty/"])
    assert done.returncode == 7, done
    assert time.monotonic() - begun < 1


def test_applying_adds_changes_and_removes_while_others_go_on(plain: Laboratory) -> None:
    near = plain.pod("near")
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: t, labels: {app: web}}\n"
    assert plain.apply(text) == ["Pod t/new added"]
    assert plain.apply(text) == ["Pod t/new unchanged"]
    assert plain.exec("caller", [sys.executable, "-c", COUNTER]).stdout.split() == ["far", "near", "new"]
    plain.label("pod", "t/new", {"app": None})
    assert plain.exec("caller", [sys.executable, "-c", COUNTER]).stdout.split() == ["far", "near"]
    first = plain.pod("new")
    assert plain.apply(text + "spec: {containers: [{env: [{name: A, value: b}]}]}\n") == [
        "Pod t/new restarted"
    ]
    assert plain.pod("new").uid != first.uid
    assert plain.apply(text, delete=True) == ["Pod t/new removed"]
    assert "new" not in plain.exec("caller", [sys.executable, "-c", COUNTER]).stdout
    assert plain.pod("near") == near
    assert not [name for name in find.namespaces(plain.names) if name.endswith(".new")]


def test_nodes_come_and_go(plain: Laboratory) -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: third}\n"
    pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: there, namespace: t}\nspec: {nodeName: third}\n"
    plain.apply(node + pod)
    assert answer(plain, "near", f"http://{plain.pod('there').addresses[0]}:8080/")["node"] == "third"
    assert answer(plain, "there", f"http://[{plain.pod('near').addresses[1]}]:8080/")["node"] == "node-1"
    assert plain.apply(node, delete=True) == ["Node third removed"]
    assert [pod.name for pod in plain.cluster().pods] == ["caller", "far", "near"]
    assert answer(plain, "caller", "http://web/")["pod"] in ("far", "near")


def test_a_pod_of_the_host_network_runs_in_its_nodes_namespace(laboratory: Laboratory) -> None:
    pod = (
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {0}}}\nspec: {{hostNetwork: {1}, nodeName: {2}}}\n---\n"
    )
    laboratory.up(pod.format("host", "true", "n1") + pod.format("plain", "false", "n2"), start_nodes=False)
    assert answer(laboratory, "plain", "http://10.10.0.11:8080/")["pod"] == "host"


def test_wrong_manifests_change_nothing(plain: Laboratory) -> None:
    before = plain.objects()
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: t}\n"
    for text in (
        pod + "---\na: b: c\n",
        pod + "spec: {nodeName: nowhere}\n",
        pod + "spec: {containers: [1]}\n",
        pod + "spec: {containers: [{ports: [{containerPort: 99999}]}]}\n",
    ):
        with pytest.raises(ConfigError, match=r"^x.yaml:\d+: "):
            plain.apply(text, "x.yaml")
    policy = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: t}\n"
    )
    with pytest.raises(
        ConfigError, match=r"x.yaml:4: spec.rules\[0\].from\[0\].source.principls: unknown field"
    ):
        plain.apply(policy + "spec: {rules: [{from: [{source: {principls: [x]}}]}]}\n", "x.yaml")
    with pytest.raises(ConfigError, match="not a label's name"):
        plain.label("pod", "near", {"a b": "c"})
    with pytest.raises(LaboratoryFailed, match="not in the laboratory: Pod t/new"):
        plain.apply(pod, delete=True)
    assert plain.objects() == before
    assert len(find.namespaces(plain.names)) == 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pod_t_far.yaml", b"\xef\xbb\xbf# x:1\na: b: c\n"),
        ("pod_t_far.yaml", b"[" * 200_000),
        ("pod_t_far.yaml", b"\xff\xfe\x00"),
        ("pod_t_far.yaml", b"apiVersion: v1\nkind: Pod\nmetadata: {name: far, namespace: t}\n"),
        ("service_t_web.yaml", b"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: t}\n"),
        ("by-hand.yml", b"apiVersion: v1\nkind: Pod\nmetadata: {name: hand, namespace: t}\n"),
        (
            "policy.yaml",
            b"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicie\nmetadata: {name: p}\n",
        ),
    ],
)
def test_a_bad_stored_file_stops_nothing(plain: Laboratory, name: str, content: bytes) -> None:
    (plain.names.manifests / name).write_bytes(content)
    assert plain.exec("caller", ["hostname"]).stdout == "caller\n"
    assert "listens" in plain.pod_log("near")
    found = plain.survey()
    assert {pod.name for pod in found.pods} >= {"caller", "near"}
    assert [fault.file for fault in found.faults] != []
    near = "apiVersion: v1\nkind: Pod\nmetadata: {name: near, namespace: t}\n"
    assert plain.apply(near, delete=True) == ["Pod t/near removed"]
    assert plain.apply(near) == ["Pod t/near added"]
    far = near.replace("near", "far")
    if name == "pod_t_far.yaml":
        assert plain.apply(far, delete=True) == ["Pod t/far removed"]
        assert not (plain.names.manifests / name).exists()
        assert plain.apply(far) == ["Pod t/far added"]
        assert answer(plain, "caller", f"http://{plain.pod('far').addresses[0]}:8080/")["pod"] == "far"
    assert plain.down() is True
    assert left(plain.names.lab) == []


def test_wrong_manifests_make_nothing(laboratory: Laboratory, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: [")
    with pytest.raises(ConfigError, match=r"a.yaml:2: not YAML"):
        laboratory.up(tmp_path)
    assert not find.exists(laboratory.names)


def test_two_laboratories_with_the_same_addresses_do_not_meet(
    new_laboratory: Callable[[], Laboratory], text: str
) -> None:
    one, other = new_laboratory(), new_laboratory()
    one.up(text, start_nodes=False)
    other.up(text.replace("name: far", "name: away"), start_nodes=False)
    assert one.pod("far").addresses == other.pod("away").addresses
    url = f"http://{one.pod('far').addresses[0]}:8080/"
    assert answer(one, "caller", url)["pod"] == "far"
    other.down()
    assert answer(one, "caller", url)["pod"] == "far"


def test_a_second_one_of_the_same_name_says_how_to_go_on(standing: Laboratory, text: str) -> None:
    with pytest.raises(LaboratoryFailed, match=r"is already up: `ztunnel demo down --name \w+` removes it"):
        Laboratory(standing.names.lab).up(text)
    assert answer(standing, "caller", "http://web/")


def test_without_a_laboratory_every_command_says_how_to_make_one(laboratory: Laboratory) -> None:
    with pytest.raises(LaboratoryFailed, match=r"there is no laboratory .* makes it"):
        laboratory.exec("caller", ["true"])
    assert laboratory.down() is False


def test_down_leaves_nothing(new_laboratory: Callable[[], Laboratory]) -> None:
    laboratory, fds = new_laboratory(), len(os.listdir("/proc/self/fd"))
    laboratory.up(BUNDLED, start_nodes=False)
    assert left(laboratory.names.lab)
    assert laboratory.down() is True
    assert left(laboratory.names.lab) == []
    assert len(os.listdir("/proc/self/fd")) == fds


@pytest.mark.parametrize("after_seconds", [0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3])
def test_one_that_was_killed_while_it_came_up_is_removed(
    new_laboratory: Callable[[], Laboratory], after_seconds: float
) -> None:
    laboratory = new_laboratory()
    script = (
        f"from ztunnel.demo.operate import *; print(flush=True); Laboratory({laboratory.names.lab!r}).up()"
    )
    environment = {**os.environ, "PYTHONPATH": str(BUNDLED.parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        time.sleep(after_seconds)  # the moment of the crash is what is tried here
        process.send_signal(signal.SIGKILL)
    if laboratory.names.directory.exists():
        with pytest.raises(LaboratoryFailed, match=r"was left half-made: .* removes it$"):
            laboratory.objects()
    laboratory.down()
    assert left(laboratory.names.lab) == []


def test_a_proxy_that_does_not_start_is_shown_and_nothing_is_left(
    new_laboratory: Callable[[], Laboratory], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    laboratory = new_laboratory()
    monkeypatch.setenv(PROGRAM, "/bin/false")
    with pytest.raises(LaboratoryFailed, match="the proxy of node-1 ended with 1"):
        laboratory.up(text)
    assert left(laboratory.names.lab) == []


def test_a_pod_that_does_not_start_is_shown_and_nothing_is_left(laboratory: Laboratory) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {{name: {0}}}\n"
    pod += "spec: {{hostNetwork: true, nodeName: n1{1}}}\n---\n"
    port = ", containers: [{name: x, ports: [{containerPort: 80}]}]"
    with pytest.raises(LaboratoryFailed, match=r"(?s)default/[ab] does not start.*Address already in use"):
        laboratory.up(pod.format("a", port) + pod.format("b", port), start_nodes=False)
    assert left(laboratory.names.lab) == []
    laboratory.up(pod.format("a", "") + pod.format("b", ""), start_nodes=False)  # they ask for no port
    said = {laboratory.pod_log(name).split()[-1] for name in "ab"}
    assert said == {"8080", "none"}


def test_manifests_without_a_pod_are_no_laboratory(laboratory: Laboratory) -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n"
    with pytest.raises(LaboratoryFailed, match=r"no pod comes of these manifests \(1 objects were read\)"):
        laboratory.up(node)
    assert not find.exists(laboratory.names)


def test_names_may_have_dots_and_be_long(laboratory: Laboratory) -> None:
    node, pod = "ip-10-0-0-1.eu-west-1.compute.internal", f"a.{'b' * 98}"
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}, namespace: a-b}}\n"
    text += f"spec: {{nodeName: {node}}}\n---\n"
    other = "apiVersion: v1\nkind: Pod\nmetadata: {name: b-c, namespace: a}\n---\n"
    third = "apiVersion: v1\nkind: Pod\nmetadata: {name: c, namespace: a-b}\n"
    laboratory.up(text + other + third)
    assert laboratory.exec("a-b/c", ["hostname"]).stdout == "c\n"
    assert laboratory.exec(pod, ["hostname"]).stdout == f"{pod[:63]}\n"
    assert laboratory.pod_log("a-b/c") == "a-b/c listens on port 8080\n"
    assert laboratory.pod_log("a/b-c") == "a/b-c listens on port 8080\n"
    assert [each.proxy for each in laboratory.survey().nodes] == ["ready"]
    laboratory.down()
    assert left(laboratory.names.lab) == []


@pytest.mark.parametrize("kill", [False, True])
def test_a_proxy_is_restarted_and_its_pods_stay(laboratory: Laboratory, text: str, kill: bool) -> None:
    ambient = (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: t, labels: {istio.io/dataplane-mode: ambient}}\n"
    )
    laboratory.up(ambient + "---" + text)
    (before,) = run.processes(laboratory.names.proxy_cgroup("node-1"))
    pods = laboratory.survey().pods
    assert all(pod.wanted and pod.enrolled and not pod.pending for pod in pods)
    laboratory.kill_node("node-2")
    waiting = {pod.name: pod.pending for pod in laboratory.survey().pods if pod.pending}
    assert waiting == {"far": "the proxy of node-2 is not running"}
    laboratory.restart_node("node-2", kill=kill)
    laboratory.restart_node("node-1", kill=kill)
    (after,) = run.processes(laboratory.names.proxy_cgroup("node-1"))
    assert after != before
    assert laboratory.survey().pods == pods
    assert answer(laboratory, "caller", "http://web/")["pod"] in ("near", "far")


def test_a_long_lived_command_ends_with_the_laboratory(plain: Laboratory) -> None:
    with plain.popen("caller", ["sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        plain.down()
        assert process.wait() == -signal.SIGKILL


def test_logs_hold_what_was_written(laboratory: Laboratory) -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{command: [echo, hello]}]}\n"
    laboratory.up(pod, start_nodes=False)
    while not laboratory.pod_log("a"):
        os.sched_yield()
    assert laboratory.pod_log("a") == "hello\n"
    assert laboratory.node_log("node-1") == ""
    with pytest.raises(LaboratoryFailed, match="no proxy runs on node-1"):
        laboratory.kill_node("node-1")
