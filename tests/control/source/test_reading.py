"""A document is read object by object, and what is wrong with one is no fault of another."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.control.source.document import KINDS
from ztunnel.control.source.reading import check, parse, read_value

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ns}\n"
POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: ns}
spec: {selector: {matchLabels: {app: x}}, rules: [{from: [{source: {principls: ["*"]}}]}]}
"""


def test_a_good_object_is_read_with_its_line_and_key():
    (found,) = parse(f"# first\n{POD}").found
    assert (found.line, found.key, found.faults) == (2, ("Pod", "ns", "a"), ())
    assert found.object.meta.name == "a"
    assert str(found.key) == "Pod ns/a"


def test_of_a_faulty_object_the_key_and_scope_are_told():
    (found,) = parse(POLICY).found
    assert (found.object, found.key, found.scope) == (None, ("AuthorizationPolicy", "ns", "p"), {"app": "x"})
    assert found.faults[0].field == "spec.rules[0].from[0].source.principls"


@pytest.mark.parametrize(
    ("old", "new", "key", "scope"),
    [
        ("name: p", "name: P", None, {"app": "x"}),
        ("namespace: ns", "namespace: [ns]", None, {"app": "x"}),
        ("metadata:", "metdata:", None, {"app": "x"}),
        ("spec: {", "spec: [], x: {", ("AuthorizationPolicy", "ns", "p"), {}),
        ("{app: x}", "{app: '*'}", ("AuthorizationPolicy", "ns", "p"), None),
        ("matchLabels:", "matchExpressions:", ("AuthorizationPolicy", "ns", "p"), None),
    ],
)
def test_what_cannot_be_told_is_not_guessed(old, new, key, scope):
    text = POLICY.replace(old, new).replace("spec: [], x:", "spec: []\nx:")
    (found,) = parse(text).found
    assert found.object is None
    assert (found.key, found.scope) == (key, scope)


def test_a_document_that_cannot_be_read_has_no_objects():
    for text in ("a: [", "\ta: 1", "- 1", "kind: List\napiVersion: v1\nkind: List\nitems: []\n"):
        parsed = parse(text)
        assert [one for one in parsed.found if one.key] == []
        assert parsed.all_faults


@pytest.mark.parametrize(
    ("version", "kind", "message"),
    [
        (
            "security.istio.io/v1",
            "AuthorizationPolcy",
            "unknown kind AuthorizationPolcy; did you mean Authoriz",
        ),
        ("v1", "Pods", "unknown kind Pods; did you mean Pod?"),
        ("v1", "pod", "unknown kind pod; did you mean Pod?"),
        ("v1", "Sevice", "unknown kind Sevice; did you mean Service?"),
        (
            "securty.istio.io/v1",
            "PeerAuthentication",
            "unknown group securty.istio.io of PeerAuthentication; did",
        ),
        ("v2", "Pod", "Pod is read in the versions v1 of the core group"),
        ("security.istio.io/", "PeerAuthentication", "apiVersion and kind are needed"),
    ],
)
def test_a_kind_or_group_that_looks_like_a_slip_is_a_fault(version, kind, message):
    (fault,) = check(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n", "a.yaml")
    assert (fault.file, fault.line) == ("a.yaml", 1)
    assert fault.message.startswith(message)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("v1", "ResourceQuota"),
        ("v1", "PodTemplate"),
        ("v1", "PersistentVolume"),
        ("apps/v1", "Deployment"),
        ("gateway.networking.k8s.io/v1alpha2", "UDPRoute"),
        ("gateway.networking.k8s.io/v1", "BackendTLSPolicy"),
        ("networking.istio.io/v1", "Sidecar"),
        ("example.org/v1", "Pod"),
    ],
)
def test_kinds_that_are_only_not_ours_are_no_fault(version, kind):
    parsed = parse(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n")
    assert (parsed.all_faults, len(parsed.unknown)) == ((), 1)


def test_check_tells_everything_with_file_and_line_and_what_stands_twice():
    text = f"{POD}---\n{POLICY}---\n{POD}---\na: [\n"
    assert [str(fault) for fault in check(text, "x.yaml")] == [
        "x.yaml:8: spec.rules[0].from[0].source: needs at least one attribute",
        "x.yaml:8: spec.rules[0].from[0].source.principls: unknown field; did you mean principals?",
        "x.yaml:10: metadata.name: Pod ns/a stands in x.yaml:1 as well, and counts as it is there",
        "x.yaml:15: not YAML: did not find expected node content",
    ]
    assert check(POD, "x.yaml") == ()


def test_a_key_that_stands_twice_is_the_fault_of_its_object():
    text = "apiVersion: v1\nkind: List\nitems:\n"
    text += "- {apiVersion: v1, kind: Pod, metadata: {name: a, name: b}}\n"
    text += "- {apiVersion: v1, kind: Pod, metadata: {name: c}}\n"
    parsed = parse(text)
    assert [one.meta.name for one in parsed.objects] == ["c"]
    assert [fault.field for fault in parsed.all_faults] == ["items[0].metadata.name"]
    assert parsed.faults == ()


def test_a_list_that_contains_itself_comes_to_an_end():
    parse("apiVersion: v1\nkind: List\nitems: &a\n- {apiVersion: v1, kind: List, items: *a}\n")


def test_a_list_of_one_large_item_repeated_without_end_is_a_fault():
    item = "&x {apiVersion: v1, kind: Pod, metadata: {name: a, labels: {" + ", ".join(
        f"l{n}: x" for n in range(200)
    )
    text = f"apiVersion: v1\nkind: List\nitems:\n- {item}}}}}}}\n" + "- *x\n" * 200
    assert "too large" in parse(text, reads=20_000).faults[0].message
    assert parse(text, reads=20_000).found == ()


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "{a: " * 200_000, "- " * 200_000, "? " * 200_000, ": " * 200_000]
)
def test_nesting_without_end_is_a_fault(text):
    assert parse(text).all_faults
    assert check(f"{POD}---\n{text}", "a.yaml")


def test_a_byte_order_mark_may_begin_each_document():
    text = f"\ufeff{POD}\ufeff---\n{POD.replace('name: a', 'name: b')}"
    assert check(text, "a.yaml") == ()


@given(st.text(max_size=200))
def test_any_text_has_faults_or_nothing(text):
    for fault in check(text, "a.yaml"):
        assert 0 < fault.line <= len(re.findall("[\n\r\x85\u2028\u2029]", text)) + 1


def test_an_object_of_plain_values_is_read_as_one_of_yaml():
    text = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, rules: [{from: [{source: {namespaces: [x]}}]}]}
"""
    kind = KINDS["security.istio.io", "AuthorizationPolicy"]
    (expected,) = parse(text).found
    found = read_value(yaml.safe_load(text), kind, strict=True)
    assert (found.key, found.object) == (expected.key, expected.object)


def test_of_a_faulty_object_of_plain_values_what_can_be_told_is_told():
    value = {"metadata": {"name": "p", "namespace": "shop"}, "spec": {"action": "NO", "rulez": []}}
    found = read_value(value, KINDS["security.istio.io", "AuthorizationPolicy"], strict=True)
    assert found.object is None
    assert (str(found.key), found.scope) == ("AuthorizationPolicy shop/p", {})
    assert [fault.field for fault in found.faults] == ["spec.rulez", "spec.action"]


@pytest.mark.parametrize("value", [None, 7, [], {}, {"metadata": 7}, {"metadata": {"name": {}}}])
def test_what_is_no_object_is_faulty(value):
    found = read_value(value, KINDS["", "Pod"], strict=False)
    assert (found.key, found.object) == (None, None)
    assert found.faults
