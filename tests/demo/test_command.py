import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from ztunnel.demo import command
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.containers import Container, Probe
from ztunnel.demo.names import Names

NAMES = Names("lab", Path("/cgroup2"))
NODE = Node("n1", 1)


def pod(*words: str, host_network: bool = False) -> Pod:
    addresses = (ip_address("10.244.1.2"), ip_address("fd00:244:1::2"))
    one = Container("a", words, {"X": "y"}, (8099,), None)
    return Pod("t", "a", "7", NODE, addresses, (one,), {}, {}, host_network)


def test_a_pod_is_entered_by_namespace_and_cgroup_before_its_command_runs() -> None:
    words = command.in_pod(NAMES, pod(), ["id", "-u"])
    assert words[:2] == ["nsenter", "--net=/run/netns/zt-lab-pod-t.a"]
    assert "/cgroup2/ztunnel-lab/n1/kubepods/pod7" in words
    assert words[-2:] == ["id", "-u"]


def test_a_pod_of_the_host_network_lives_in_its_nodes_namespace() -> None:
    assert command.in_pod(NAMES, pod(host_network=True), [])[1] == "--net=/run/netns/zt-lab-node-n1"


def test_a_pod_without_a_command_gets_the_echo_server_on_its_port() -> None:
    (runs,) = command.programs(pod("sleep", "1"))
    assert (runs.words, runs.stands_in) == (["sleep", "1"], False)
    (echo,) = command.programs(pod())
    assert (echo.words[-2:], echo.stands_in) == (["ztunnel.demo.echo", "8099"], True)


def test_what_this_machine_does_not_have_is_stood_in_for() -> None:
    (echo,) = command.programs(pod("/app/server", "--port=1"))
    assert (echo.words[-1], echo.stands_in) == ("8099", True)


def test_one_echo_server_serves_the_ports_of_all_containers_that_do_not_run() -> None:
    given = [
        Container("web", (), {"WHO": "web"}, (80, 9000), None),
        Container("own", ("sleep", "1"), {"WHO": "own"}, (9000, 9001), None),
        Container("metrics", ("/no/such",), {}, (9100, 80), Probe(9999, "/", (), 30.0)),
    ]
    both = command.programs(replace(pod(), containers=tuple(given), targets=(7000,)))
    assert both[0].words == ["sleep", "1"]
    assert both[1].words[-2:] == ["80", "9100"]
    assert [program.environment["WHO"] for program in both] == ["own", "web"]


def test_an_echo_server_alone_serves_what_services_and_probes_expect_too() -> None:
    given = Container("web", (), {}, (80,), Probe(9999, "/", (), 30.0))
    (echo,) = command.programs(replace(pod(), containers=(given,), targets=(7000, 80)))
    assert echo.words[-3:] == ["80", "7000", "9999"]
    bare = replace(pod(), containers=(replace(given, ports=(), probe=None),))
    assert [program.words[-1] for program in command.programs(bare)] == ["8080"]
    assert [program.words[-1] for program in command.programs(replace(bare, host_network=True))] == ["8080?"]


def test_only_a_command_that_runs_is_probed() -> None:
    probe = Probe(80, "/", (), 30.0)
    for words, expected in ((("sleep", "1"), [probe]), (("/no/such",), []), ((), [])):
        given = Container("web", words, {}, (80,), probe)
        assert command.probed(replace(pod(), containers=(given,))) == expected


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
