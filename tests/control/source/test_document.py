"""Which kinds are read, and what makes two objects the same one."""

import pytest

from ztunnel.control.source.document import KINDS, Key, key_of
from ztunnel.control.source.reading import parse


@pytest.mark.parametrize(
    ("key", "text"), [(Key("Pod", "shop", "a"), "Pod shop/a"), (Key("Node", "", "n1"), "Node n1")]
)
def test_a_key_reads_as_operators_write_it(key, text):
    assert str(key) == text


@pytest.mark.parametrize(("group", "kind"), KINDS)
def test_each_kind_is_known_by_its_name_and_none_twice(group, kind):
    assert [name for _, name in KINDS].count(kind) == 1
    version = KINDS[group, kind].versions[0]
    text = f"apiVersion: {group + '/' if group else ''}{version}\nkind: {kind}\nmetadata: {{name: a}}\n"
    (found,) = parse(text).found
    assert found.key is None or (found.key.kind, found.key.name) == (kind, "a")
    if found.object is not None:
        assert key_of(found.object) == found.key
