"""A folder's objects are gathered with all their faults at once, and what did not change is not made anew."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.control.inventory import Inventory, gather, of_kind, parse
from ztunnel.control.settings import MeshSettings
from ztunnel.control.translation import Translation, translate
from ztunnel.errors import ConfigError, Fault
from ztunnel.state.kube import Namespace, Pod

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ns}\n"
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n"


def faults_of(**files):
    with pytest.raises(ConfigError) as caught:
        gather({f"{name}.yaml": text for name, text in files.items()}, Inventory())
    return [str(fault) for fault in caught.value.faults]


def test_objects_stand_under_kind_namespace_and_name():
    inventory = gather({"a.yaml": POD, "b.yaml": f"{NAMESPACE}---\n# nothing\n---\n"}, Inventory())
    assert inventory.objects.keys() == {("Pod", "ns", "a"), ("Namespace", "", "ns")}
    assert [one.meta.name for one in of_kind(inventory.objects.values(), Namespace)] == ["ns"]


def test_faults_of_all_files_come_at_once_with_file_line_and_field():
    assert faults_of(
        a=f"{NAMESPACE}---\n{POD}sepc: {{}}\nstatus: {{podIP: x}}\n",
        b="a: [\n",
        c="- 1\n",
        d="kind: Pod\n",
        e="apiVersion: v2\nkind: Pod\nmetadata: {name: a}\n",
        f="apiVersion: security.istio.io/v1alpha3\nkind: AuthorizationPolicy\nmetadata: {name: a}\n",
    ) == [
        "a.yaml:8: sepc: unknown field; did you mean spec?",
        "a.yaml:9: status.podIP: not an IP address: 'x'",
        "b.yaml:2: not YAML: did not find expected node content",
        "c.yaml:1: must be a mapping, is a list",
        "d.yaml:1: apiVersion and kind are needed",
        "e.yaml:1: Pod is read in the versions v1 of the core group",
        "f.yaml:1: AuthorizationPolicy is read in the versions v1, v1beta1 of security.istio.io",
    ]


def test_a_file_that_could_not_be_read_is_one_of_the_faults():
    fault = Fault("x.yaml", 0, "", "cannot be read: Permission denied")
    with pytest.raises(ConfigError, match=r"x\.yaml: cannot be read"):
        gather({"a.yaml": POD, "x.yaml": fault}, Inventory())


def test_the_same_object_twice_is_a_fault():
    assert faults_of(a=POD, b=f"---\n{NAMESPACE}---\n{POD}") == [
        "b.yaml:6: metadata.name: Pod ns/a stands in a.yaml:1 as well"
    ]


def test_lists_and_typed_lists_are_unpacked():
    text = """apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: x}}
- {apiVersion: v1, kind: Namespace, metadata: {name: y}}
---
apiVersion: v1
kind: PodList
metadata: {resourceVersion: ""}
items:
- {metadata: {name: a}}
"""
    assert len(gather({"a.yaml": text}, Inventory()).objects) == 3


def test_faults_in_a_list_name_the_item():
    text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: A}}\n"
    (fault,) = faults_of(a=text)
    assert fault.startswith("a.yaml:4: items[0].metadata.name: not a name")


def test_a_list_that_contains_itself_comes_to_an_end():
    parse("apiVersion: v1\nkind: List\nitems: &a\n- {apiVersion: v1, kind: List, items: *a}\n")


def test_a_document_of_repeated_aliases_is_a_fault():
    text = POD + "x0: &x0 {a: b}\n"
    text = "apiVersion: v1\nkind: List\nitems: [" + "*x, " * 5 + "]\nx: &x 1\n"
    assert parse(text).faults != ()


def test_unknown_kinds_are_named_once():
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\napiVersion: a.b/v1\nkind: Pod\n"
    inventory = gather({"a.yaml": text, "b.yaml": text}, Inventory())
    assert inventory.unknown == {"Secret", "a.b/Pod"}
    assert inventory.objects == {}


def test_what_stands_as_it_was_is_the_same_object():
    before = gather({"a.yaml": f"{POD}---\n{NAMESPACE}"}, Inventory())
    moved = gather({"a.yaml": f"# moved\n---\n{NAMESPACE}", "b.yaml": f"# equal\n{POD}"}, before)
    for key, one in moved.objects.items():
        assert one is before.objects[key]
    changed = gather({"a.yaml": POD.replace("}", ", labels: {x: y}}")}, before)
    assert changed.objects["Pod", "ns", "a"] != before.objects["Pod", "ns", "a"]
    assert isinstance(changed.objects["Pod", "ns", "a"], Pod)


def test_a_cached_fault_keeps_its_place_when_its_document_moves():
    with pytest.raises(ConfigError) as caught:
        gather({"a.yaml": "# one\n---\nkind: Pod\n", "b.yaml": "---\nkind: Pod\n"}, Inventory())
    assert [(fault.file, fault.line) for fault in caught.value.faults] == [("a.yaml", 3), ("b.yaml", 2)]


GOLDEN = [path.read_text() for path in sorted((Path(__file__).parent / "golden").glob("*.in.yaml"))]
scraps = st.sampled_from(
    ["", "x", "[", "]", "{", "}", ": ", "- ", "\n", "  ", "~", "'", "80", "*a", "&a ", "!!x ", "---\n"]
)


@given(
    st.sampled_from(GOLDEN),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 30), scraps), max_size=4),
)
def test_whatever_becomes_of_a_manifest_is_translated_or_refused_with_its_lines(text, changes):
    for start, length, scrap in changes:
        start %= len(text)
        text = text[:start] + scrap + text[start + length :]
    faults = []
    try:
        translate(gather({"a.yaml": text}, Inventory()), MeshSettings(), Translation())
    except ConfigError as error:
        faults = [*error.faults]
    assert all(0 < fault.line <= text.count("\n") + 1 for fault in faults)


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text):
    with suppress(ConfigError):
        gather({"a.yaml": text}, Inventory())
