import sys
from ipaddress import ip_address
from pathlib import Path

from ztunnel.demo import command
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.names import Names

NAMES = Names("lab", Path("/cgroup2"))
NODE = Node("n1", 1)


def pod(*words: str, host_network: bool = False) -> Pod:
    addresses = (ip_address("10.244.1.2"), ip_address("fd00:244:1::2"))
    return Pod("t", "a", "7", NODE, addresses, words, {"X": "y"}, 8099, {}, {}, host_network)


def test_a_pod_is_entered_by_namespace_and_cgroup_before_its_command_runs() -> None:
    words = command.in_pod(NAMES, pod(), ["id", "-u"])
    assert words[:2] == ["nsenter", "--net=/run/netns/zt-lab-pod-t.a"]
    assert "/cgroup2/ztunnel-lab/n1/kubepods/pod7" in words
    assert words[-2:] == ["id", "-u"]


def test_a_pod_of_the_host_network_lives_in_its_nodes_namespace() -> None:
    assert command.in_pod(NAMES, pod(host_network=True), [])[1] == "--net=/run/netns/zt-lab-node-n1"


def test_a_pod_without_a_command_gets_the_echo_server_on_its_port() -> None:
    assert command.pod_command(pod("sleep", "1")) == ["sleep", "1"]
    assert command.pod_command(pod())[-2:] == ["ztunnel.demo.echo", "8099"]


def test_the_pods_own_variables_win() -> None:
    environment = command.pod_environment(pod())
    assert environment["X"] == "y"
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_no_directory_where_somebody_stands_hides_our_packages() -> None:
    ours = command.module_command("ztunnel.demo.echo", 80)
    assert ours[ours.index("-m") :] == ["-m", "ztunnel.demo.echo", "80"]
    assert "-P" in ours[: ours.index("-m")]
    assert "-P" in command.program({})


def options(words: list[str]) -> dict[str, str]:
    flags = words[words.index("node") + 1 :]
    return dict(zip(flags[::2], flags[1::2], strict=True))


def test_a_node_proxy_is_told_where_everything_is() -> None:
    given = options(command.node_command(NAMES, NODE, {}))
    assert given["--node"] == "n1"
    assert given["--pins"] == "/sys/fs/bpf/ztunnel/lab-n1"
    assert given["--pod-netns"].format(namespace="t", name="a") == "/run/netns/zt-lab-pod-t.a"
    assert command.node_environment({"PYTHONPATH": "/x"})["PYTHONPATH"].endswith(":/x")


def test_a_node_proxy_may_be_another_program_with_packages_of_its_own() -> None:
    inherited = {command.PROGRAM: "/other/bin/ztunnel", "PYTHONPATH": "/x", "LOG_LEVEL": "debug"}
    words = command.node_command(NAMES, NODE, inherited)
    assert words[:2] == ["/other/bin/ztunnel", "node"]
    assert options(words) == options(command.node_command(NAMES, NODE, {}))
    environment = command.node_environment(inherited)
    assert "PYTHONPATH" not in environment
    assert environment["LOG_LEVEL"] == "debug"
    assert command.program({command.PROGRAM: "bin/ztunnel"}) == [str(Path("bin/ztunnel").absolute())]
