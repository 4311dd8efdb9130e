import pytest

from ztunnel.demo import find
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_laboratory_is_found_by_each_thing_that_it_leaves(laboratory: Laboratory) -> None:
    names = laboratory.names
    assert not find.exists(names)
    for thing in (names.cgroup, names.directory, names.netns(names.fabric)):
        thing.mkdir(parents=True)
        assert find.exists(names)
        assert names.lab in find.laboratories(names.cgroup2)
        thing.rmdir()
    assert names.lab not in find.laboratories(names.cgroup2)


def test_all_its_namespaces_are_found(plain: Laboratory) -> None:
    prefix = plain.names.prefix
    assert [name.removeprefix(prefix) for name in find.namespaces(plain.names)] == [
        "fabric",
        "node-node-1",
        "node-node-2",
        "pod-t.caller",
        "pod-t.far",
        "pod-t.near",
    ]
    assert find.pins(plain.names) == []
