"""What a taking over changed is told by names, and never in more of them than a line holds."""

from ztunnel.control.source.change import difference, name_some
from ztunnel.control.source.inventory import Inventory, gather


def folder(before=None, **labels):
    texts = {
        f"{name}.yaml": f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{x: {value}}}}}\n"
        for name, value in labels.items()
    }
    return gather(texts, before or Inventory())


def test_what_came_changed_and_went_is_told_apart():
    before = folder(a="one", b="one", c="one")
    change = difference(before, folder(before, b="one", c="two", d="one"))
    assert change.fields() == {
        "added": "Pod default/d",
        "changed": "Pod default/c",
        "removed": "Pod default/a",
    }


def test_what_only_reads_equal_is_no_change():
    before = folder(a="one")
    assert not difference(before, folder(before, a="one # a comment"))
    assert difference(before, before).fields() == {}


def test_of_many_some_are_named():
    assert name_some(map(str, range(10)), 10) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert name_some(map(str, range(5000)), 5000) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 4990 more"
