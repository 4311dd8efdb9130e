"""A folder's objects are gathered with all their faults at once; what is wrong costs only itself, and what
did not change is not made anew."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ztunnel.control.settings import MeshSettings
from ztunnel.control.source import inventory
from ztunnel.control.source.inventory import FaultyPolicy, Inventory, gather, of_kind
from ztunnel.control.translation import translate
from ztunnel.errors import Fault
from ztunnel.state.kube import Namespace, Pod

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ns}\n"
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n"


DENY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: ns}
spec: {action: DENY, selector: {matchLabels: {app: x}}, rules: [{}]}
"""


def gathered(before=None, **files):
    return gather({f"{name}.yaml": text for name, text in files.items()}, before or Inventory())


def names(inventory):
    return sorted(str(key) for key in inventory.objects)


def faults_of(**files):
    return [str(fault) for fault in gathered(**files).faults]


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
    inventory = gather({"a.yaml": POD, "x.yaml": fault}, Inventory())
    assert (names(inventory), inventory.faults) == (["Pod ns/a"], (fault,))


def test_of_an_object_in_two_places_the_first_counts_and_both_are_named():
    inventory = gathered(a=POD, b=f"---\n{NAMESPACE}---\n{POD.replace('}', ', labels: {x: y}}')}")
    assert [str(fault) for fault in inventory.faults] == [
        "b.yaml:6: metadata.name: Pod ns/a stands in a.yaml:1 as well, and counts as it is there"
    ]
    assert inventory.objects["Pod", "ns", "a"].meta.labels == {}


def test_of_an_object_in_two_places_the_first_good_one_counts():
    inventory = gathered(a=POD + "sepc: {}\n", b=POD)
    assert inventory.places["Pod", "ns", "a"] == ("b.yaml", 1)
    assert (len(inventory.faults), inventory.kept) == (1, frozenset())


# --- what is wrong costs only itself ------------------------------------------------

GOOD = gathered(a=f"{POD}---\n{DENY}", b=NAMESPACE)


def test_a_faulty_object_is_left_out_and_everything_beside_it_is_taken_over():
    inventory = gathered(
        GOOD, a=f"{POD.replace('name: a', 'name: z')}---\n{DENY}---\n{POD}sepc: 1\n", b=NAMESPACE
    )
    assert names(inventory) == ["AuthorizationPolicy ns/deny", "Namespace ns", "Pod ns/a", "Pod ns/z"]
    assert inventory.kept == {("Pod", "ns", "a")}
    assert inventory.faulty_files == {"a.yaml"}


def test_what_never_was_good_is_not_there():
    assert names(
        gathered(GOOD, a=f"{POD}---\n{DENY}", b=NAMESPACE, c=POD.replace("a,", "b,") + "x: 1\n")
    ) == names(GOOD)


def test_a_document_that_cannot_be_read_keeps_the_objects_of_its_file_and_no_others():
    inventory = gathered(GOOD, a="a: [\n", b="# nothing any more\n")
    assert names(inventory) == ["AuthorizationPolicy ns/deny", "Pod ns/a"]
    assert inventory.objects["Pod", "ns", "a"] is GOOD.objects["Pod", "ns", "a"]
    again = gathered(inventory, a="a: {\n")
    assert names(again) == names(inventory)
    assert names(gathered(again, a=POD)) == ["Pod ns/a"]
    assert names(gathered(again)) == []


def test_a_document_that_cannot_be_read_does_not_cost_the_others_of_its_stream():
    inventory = gathered(GOOD, a=f"a: [\n---\n{POD.replace('}', ', labels: {x: y}}')}", b=NAMESPACE)
    assert inventory.objects["Pod", "ns", "a"].meta.labels == {"x": "y"}
    assert inventory.kept == {("AuthorizationPolicy", "ns", "deny")}


def test_an_object_that_has_gone_to_another_file_is_not_kept_where_it_was():
    inventory = gathered(GOOD, a="a: [\n", b=POD.replace("}", ", labels: {x: y}}"))
    assert inventory.places["Pod", "ns", "a"] == ("b.yaml", 1)
    assert inventory.kept == {("AuthorizationPolicy", "ns", "deny")}


def test_a_file_or_folder_that_cannot_be_read_keeps_what_stood_there():
    before = gather({"sub/a.yaml": POD, "sub.yaml": NAMESPACE}, Inventory())
    for name in ("sub/a.yaml", "sub"):
        inventory = gather({name: Fault(name, 0, "", "cannot be read")}, before)
        assert names(inventory) == ["Pod ns/a"]


def test_a_name_that_is_none_keeps_what_stood_in_its_file():
    assert gathered(GOOD, a=POD.replace("a,", "A,"), b=NAMESPACE).kept == {
        ("AuthorizationPolicy", "ns", "deny"),
        ("Pod", "ns", "a"),
    }


def test_of_a_list_only_the_faulty_item_is_left_out():
    text = (
        "apiVersion: v1\nkind: PodList\nitems:\n- {metadata: {name: a}}\n- {metadata: {name: b}, x: 1}\n- 7\n"
    )
    inventory = gathered(a=text)
    assert names(inventory) == ["Pod default/a"]
    assert [str(fault) for fault in inventory.faults] == [
        "a.yaml:5: items[1].x: unknown field",
        "a.yaml:6: items[2]: must be a mapping, is a number",
    ]


def test_faulty_policies_are_told_with_what_they_select_and_whether_a_good_version_counts():
    bad = DENY.replace("rules: [{}]", "rules: [{frm: []}]")
    inventory = gathered(GOOD, a=bad, b=bad.replace("name: deny", "name: new").replace("{app: x}", "{'': x}"))
    fault = Fault("a.yaml", 4, "spec.rules[0].frm", "unknown field; did you mean from?")
    first, second = inventory.policies
    assert first == FaultyPolicy(("AuthorizationPolicy", "ns", "deny"), {"app": "x"}, (fault,), True)
    assert (second.key.name, second.selector, second.kept) == ("new", None, False)


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


def test_unknown_kinds_are_named_once():
    text = "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: a}\n---\napiVersion: a.b/v1\nkind: Pod\n"
    inventory = gather({"a.yaml": text, "b.yaml": text}, Inventory())
    assert inventory.unknown == {"PodTemplate", "a.b/Pod"}
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
    faults = gathered(a="# one\n---\nkind: Pod\n", b="---\nkind: Pod\n").faults
    assert [(fault.file, fault.line) for fault in faults] == [("a.yaml", 3), ("b.yaml", 2)]


GOLDEN = [path.read_text() for path in sorted((Path(__file__).parents[1] / "golden").glob("*.in.yaml"))]
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
    inventory = gather({"a.yaml": text}, Inventory())
    translate(inventory, MeshSettings())
    assert all(0 < fault.line <= text.count("\n") + 1 for fault in inventory.faults)


@given(
    st.sampled_from(GOLDEN),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 30), scraps), min_size=1, max_size=2),
)
def test_whatever_becomes_of_one_file_the_objects_of_another_stay_in_force(text, changes):
    other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: of-another-file}\n"
    before = gather({"a.yaml": text, "b.yaml": other}, Inventory())
    broken = text
    for start, length, scrap in changes:
        start %= len(broken)
        broken = broken[:start] + scrap + broken[start + length :]
    after = gather({"a.yaml": broken, "b.yaml": other}, before)
    assert (
        after.objects["Namespace", "", "of-another-file"]
        is before.objects["Namespace", "", "of-another-file"]
    )
    read_no_more = before.objects.keys() - after.objects.keys()
    assert not read_no_more or not any(parse_faults(broken))


def parse_faults(text):
    """Those because of which not every object can be named."""
    inventory = gather({"a.yaml": text}, Inventory())
    named = {fault for policy in inventory.policies for fault in policy.faults}
    return [fault for fault in inventory.faults if fault not in named and "not YAML" in fault.message]


def as_list(texts, kind="List"):
    """A list in block style of documents."""
    lines = [line for text in texts for line in indented(text)]
    return f"apiVersion: v1\nitems:\n{''.join(lines)}kind: {kind}\n"


def indented(text):
    body = [line for line in text.splitlines(keepends=True) if line.strip()]
    return [("- " if number == 0 else "  ") + line for number, line in enumerate(body)]


def both_ways(text, monkeypatch):
    """What a text is gathered as in whole, and cut into items."""
    read = []
    for long in (10**9, 0):
        monkeypatch.setattr(inventory, "LONG", long)
        found = gather({"a.yaml": text}, Inventory())
        read.append((found.objects, found.places, found.faults, found.kept))
    return read


DOCUMENTS = [text for golden in GOLDEN for text in golden.split("\n---\n")]


@given(
    st.lists(st.sampled_from(DOCUMENTS), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 30), scraps), max_size=4),
    st.sampled_from(["List", "PodList", "Pod", "ServiceList", "[]"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_list_that_is_cut_reads_as_in_whole_whatever_becomes_of_it(monkeypatch, texts, changes, kind):
    text = as_list(texts, kind)
    for start, length, scrap in changes:
        start %= len(text)
        text = text[:start] + scrap + text[start + length :]
    whole, cut = both_ways(text, monkeypatch)
    assert whole == cut


@pytest.mark.parametrize(
    "items",
    [
        "- &a {kind: Pod, apiVersion: v1, metadata: {name: a}}\n- *a\n",
        "- kind: Pod\n  apiVersion: v1\n  metadata: {name: 'a\n- b'}\n",
        "- {kind: Pod, apiVersion: v1, metadata: {name: a, labels: {\n- x: y}}}\n",
        "- 7\n-\n- ~\n- []\n- x: |\n   - y\n",
        "- kind: Pod\n...\n- kind: Pod\n",
        "- kind: Pod\n  apiVersion: v1\n  metadata: {name: a}\n- &x kind: Pod\n  *x : y\n",
        "- kind: Pod\n  apiVersion: v1\n  metadata: {name: a}\nitems: []\n",
    ],
)
def test_what_ties_items_together_is_read_in_whole(items, monkeypatch):
    whole, cut = both_ways(f"apiVersion: v1\nkind: List\nitems:\n{items}", monkeypatch)
    assert whole == cut


def test_of_a_list_that_changes_in_one_item_the_others_are_not_read_again(monkeypatch):
    monkeypatch.setattr(inventory, "LONG", 0)
    texts = [POD.replace("name: a", f"name: p{n}") for n in range(50)]
    before = gather({"a.yaml": as_list(texts)}, Inventory())
    assert len(before.objects) == 50
    texts[7] = texts[7].replace("}", ", labels: {x: y}}")
    after = gather({"a.yaml": as_list(texts)}, before)
    assert len(after.parsed.keys() - before.parsed.keys()) == 1
    changed = [key for key, one in after.objects.items() if before.objects[key] is not one]
    assert [key.name for key in changed] == ["p7"]


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text):
    gather({"a.yaml": text}, Inventory())
