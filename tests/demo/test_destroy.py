import shutil

import pytest

from ztunnel.demo import find
from ztunnel.demo.destroy import destroy, destroy_node
from ztunnel.demo.names import RUN
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_pieces_are_removed_and_the_second_time_there_are_none(laboratory: Laboratory) -> None:
    names = laboratory.names
    names.proxy_cgroup("n1").mkdir(parents=True)
    names.manifests.mkdir(parents=True)
    names.netns(names.node("n1")).parent.mkdir(exist_ok=True)
    by_hand = RUN / f"{names.lab}-n1.pods"
    by_hand.touch()
    names.netns(names.node("n1")).touch()  # as `ip netns add` leaves it when it is killed before its mount
    assert destroy(names) is True
    assert not find.exists(names)
    assert not by_hand.exists()
    assert destroy(names) is False


def test_a_node_is_removed_and_no_other(plain: Laboratory) -> None:
    destroy_node(plain.names, "node-2")
    assert not (plain.names.cgroup / "node-2").exists()
    assert (
        '"near"'
        in plain.exec("caller", ["curl", "-s", f"http://{plain.pod('near').addresses[0]}:8080/"]).stdout
    )


def test_whatever_stands_there_goes(laboratory: Laboratory, text: str) -> None:
    laboratory.up(text, start_nodes=False)
    names = laboratory.names
    (names.netns(f"{names.prefix}pod-t.folder") / "below").mkdir(parents=True)
    names.netns(f"{names.prefix}pod-t.dangling").symlink_to("nowhere")
    (names.manifests / "bad.yaml").write_text("[" * 200_000)
    (names.manifests / "pod_t_near.yaml").write_text("\ufeffa: b: c")
    names.whole.unlink()
    assert laboratory.down() is True
    assert not find.exists(names)


def test_without_its_files_the_rest_of_it_goes(laboratory: Laboratory, text: str) -> None:
    laboratory.up(text, start_nodes=False)
    shutil.rmtree(laboratory.names.directory)
    laboratory.names.directory.touch()
    assert laboratory.down() is True
    assert not find.exists(laboratory.names)
