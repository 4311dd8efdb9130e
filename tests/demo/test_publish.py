import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from ztunnel.demo.manifest import parse
from ztunnel.demo.names import Names
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.publish import load, locked, read_objects, write_hosts, write_objects
from ztunnel.demo.schedule import complete
from ztunnel.errors import ConfigError

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: t}\n"
POLICY = (
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: t} # why\n"
)


def test_files_and_directories_are_read_and_their_faults_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POD)
    (tmp_path / "b.yml").write_text(POLICY)
    (tmp_path / "README").write_text("{")
    assert [manifest.key.kind for manifest in load([tmp_path])] == ["Pod", "PeerAuthentication"]
    assert len(load([tmp_path / "a.yaml"])) == 1
    (tmp_path / "c.yaml").write_bytes(b"\xff")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        load([tmp_path, tmp_path / "none", tmp_path / "empty"])
    assert [fault.message for fault in caught.value.faults] == [
        "not UTF-8",
        "No such file or directory",
        "no *.yaml in this directory",
    ]


@pytest.mark.root
def test_what_is_written_is_read_again_with_where_it_came_from(laboratory: Laboratory) -> None:
    names, uids = laboratory.names, map(str, count())
    objects = complete({}, parse(POD + "---\n" + POLICY, "x.yaml"), lambda: next(uids))
    write_objects(names, {}, objects)
    found = read_objects(names)
    assert {key: manifest.body for key, manifest in found.items()} == {
        key: manifest.body for key, manifest in objects.items()
    }
    assert {(manifest.file, manifest.line) for manifest in found.values()} == {
        ("x.yaml", 1),
        ("x.yaml", 5),
        ("", 0),
    }


@pytest.mark.root
def test_only_what_changed_is_written_and_what_is_gone_is_removed(laboratory: Laboratory) -> None:
    names, uids = laboratory.names, map(str, count())
    before = complete({}, parse(POD + "---\n" + POLICY, "x.yaml"), lambda: next(uids))
    write_objects(names, {}, before)
    inodes = {path.name: path.stat().st_ino for path in names.manifests.iterdir()}
    after = complete(before, parse(POD.replace("t}", "t, labels: {x: y}}"), "x.yaml"), lambda: next(uids))
    after = {key: manifest for key, manifest in after.items() if key.kind != "PeerAuthentication"}
    write_objects(names, before, after)
    changed = {path.name for path in names.manifests.iterdir() if path.stat().st_ino != inodes[path.name]}
    assert changed == {"pod_t_a.yaml"}
    assert len(list(names.manifests.iterdir())) == len(inodes) - 1


@pytest.mark.root
def test_hosts_are_written_into_the_same_file(laboratory: Laboratory) -> None:
    names = laboratory.names
    write_hosts(names, [("t", "long text\n")])
    inode = names.hosts("t").stat().st_ino
    write_hosts(names, [("t", "short\n")])
    assert names.hosts("t").read_text() == "short\n"
    assert names.hosts("t").stat().st_ino == inode


@pytest.mark.root
def test_a_lock_is_held_by_one_and_survives_the_removal_of_its_file(new_name: Callable[[], str]) -> None:
    names = Names(new_name(), Path("/cgroup2"))
    fds = len(os.listdir("/proc/self/fd"))
    with locked(names):
        names.lock.unlink()
        with locked(names):
            assert names.lock.exists()
    names.lock.unlink()
    assert len(os.listdir("/proc/self/fd")) == fds
