from pathlib import Path

import pytest

from ztunnel.demo import build
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory
from ztunnel.kernel import named
from ztunnel.kernel.topology import Up

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_what_the_kernel_says_is_in_the_error(standing: Laboratory) -> None:
    with pytest.raises(LaboratoryFailed, match=r"fabric: up none: No such device"):
        build.change_networks(standing.names, {standing.names.fabric: [Up("lo"), Up("none")]})
    with pytest.raises(LaboratoryFailed, match=r"nowhere: .*No such file"):
        build.change_networks(standing.names, {"nowhere": [Up("lo")]})


def test_what_nft_says_is_in_the_error(standing: Laboratory) -> None:
    with pytest.raises(LaboratoryFailed, match="syntax error"):
        build.translate(standing.names, ["node-1"], "nonsense")


def test_a_pods_addresses_are_usable_at_once(plain: Laboratory) -> None:
    shown = plain.exec("caller", ["ip", "-brief", "address", "show", "dev", "eth0"]).stdout
    v4, v6 = plain.pod("caller").addresses
    assert f"{v4}/32" in shown
    assert f"{v6}/128" in shown
    tentative = plain.exec("caller", ["ip", "-6", "address", "show", "tentative"]).stdout
    assert tentative == ""


def test_a_node_forwards_and_the_machine_is_left_as_it_was(plain: Laboratory) -> None:
    shown = plain.exec_node(
        "node-1", ["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]
    )
    assert shown.stdout.split() == ["1", "1"]
    names = [path.name for path in Path("/sys/class/net").iterdir()]
    assert not {"fabric0", "pods0"} & set(names)


def test_cgroups_of_nodes_and_pods_are_there(standing: Laboratory) -> None:
    names, pod = standing.names, standing.pod("far")
    for path in (
        names.node_cgroup("node-2"),
        names.proxy_cgroup("node-2"),
        names.pod_cgroup("node-2", pod.uid),
    ):
        assert path.is_dir()


def test_a_namespace_that_a_failure_left_is_made_anew(plain: Laboratory) -> None:
    left = plain.names.pod("t", "new")
    named.create(plain.names.netns(left))
    plain.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: t}\n")
    assert (
        '"new"'
        in plain.exec("caller", ["curl", "-s", f"http://{plain.pod('new').addresses[0]}:8080/"]).stdout
    )
