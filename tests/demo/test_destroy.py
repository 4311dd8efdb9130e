import pytest

from ztunnel.demo import find
from ztunnel.demo.destroy import destroy, destroy_node
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_pieces_are_removed_and_the_second_time_there_are_none(laboratory: Laboratory) -> None:
    names = laboratory.names
    names.proxy_cgroup("n1").mkdir(parents=True)
    names.manifests.mkdir(parents=True)
    names.netns(names.node("n1")).parent.mkdir(exist_ok=True)
    names.netns(names.node("n1")).touch()  # as `ip netns add` leaves it when it is killed before its mount
    assert destroy(names) is True
    assert not find.exists(names)
    assert destroy(names) is False


def test_a_node_is_removed_and_no_other(plain: Laboratory) -> None:
    destroy_node(plain.names, "node-2")
    assert not (plain.names.cgroup / "node-2").exists()
    assert (
        '"near"'
        in plain.exec("caller", ["curl", "-s", f"http://{plain.pod('near').addresses[0]}:8080/"]).stdout
    )
