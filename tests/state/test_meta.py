"""Metadata is read strictly: what is misspelled there would change who is in the mesh."""

import pytest

from ztunnel.model.workload import SameNode
from ztunnel.state.manifest import Notes, compose
from ztunnel.state.meta import Owner, read_labels, read_meta, read_port


def read(metadata):
    notes = Notes()
    meta = read_meta(compose(f"metadata: {metadata}\n", notes))
    return meta, [(fault.field, fault.message.partition(":")[0]) for fault in notes.faults]


def test_metadata_is_read():
    meta, faults = read(
        "{name: a, namespace: ns, uid: 0e78bcdb, labels: {app: web},"
        " annotations: {ztunnel.io/same-node: mtls, x: y},"
        " creationTimestamp: 2026-01-01T00:00:00Z, deletionTimestamp: 2026-01-02T00:00:00Z,"
        " ownerReferences: [{kind: Job, name: j, controller: true}]}"
    )
    assert faults == []
    assert (meta.name, meta.namespace, meta.labels) == ("a", "ns", {"app": "web"})
    assert (meta.created, meta.deleting, meta.same_node) == ("2026-01-01T00:00:00Z", True, SameNode.MTLS)
    assert meta.uid == "0e78bcdb"
    assert meta.owners == (Owner("Job", "j", True),)


@pytest.mark.parametrize(("word", "meant"), [("allow", True), ("refuse", False)])
def test_whether_a_pod_may_forward_is_read(word, meant):
    assert read(f"{{name: a, annotations: {{ztunnel.io/forwarding: {word}}}}}")[0].forwards is meant
    assert read("{name: a}")[0].forwards is None


def test_an_object_without_a_namespace_is_in_default():
    assert read("{name: a}")[0].namespace == "default"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ("~", ""),
        ("[]", "metadata"),
        ("{}", "metadata"),
        ("{generateName: a-}", "metadata"),
        ("{name: A}", "metadata.name"),
        ("{name: a/b}", "metadata.name"),
        (f"{{name: {'a' * 254}}}", "metadata.name"),
        ("{name: a, namespace: -b}", "metadata.namespace"),
        ("{name: a, lables: {}}", "metadata.lables"),
        ("{name: a, labels: [x]}", "metadata.labels"),
        ("{name: a, labels: {x: 1}}", "metadata.labels.x"),
        ("{name: a, labels: {'x y': z}}", "metadata.labels[x y]"),
        ("{name: a, labels: {'/x': z}}", "metadata.labels[/x]"),
        ("{name: a, labels: {'A_/x': z}}", "metadata.labels[A_/x]"),
        ("{name: a, labels: {x: 'a b'}}", "metadata.labels.x"),
        (f"{{name: a, labels: {{x: {'y' * 64}}}}}", "metadata.labels.x"),
        ("{name: a, annotations: {x: 1}}", "metadata.annotations.x"),
        (
            "{name: a, annotations: {ztunnel.io/same-node: always}}",
            "metadata.annotations[ztunnel.io/same-node]",
        ),
        (
            "{name: a, annotations: {ztunnel.io/forwarding: 'yes'}}",
            "metadata.annotations[ztunnel.io/forwarding]",
        ),
    ],
)
def test_wrong_metadata_is_a_fault_at_its_field(metadata, field):
    assert [place for place, _ in read(metadata)[1]][:1] == [field]


@pytest.mark.parametrize("value", ["a", "a.b_c-d", "''", "A1", "y" * 63])
def test_label_values_may_be(value):
    notes = Notes()
    read_labels(compose(f"x: {{example.com/name: {value}}}", notes), "x")
    assert notes.faults == []


@pytest.mark.parametrize(
    ("text", "port", "faults"), [("80", 80, 0), ("0", 0, 1), ("65536", 0, 1), ("http", 0, 1)]
)
def test_ports_are_numbers_in_range(text, port, faults):
    notes = Notes()
    assert read_port(compose(f"a: {text}", notes).sub("a")) == port
    assert len(notes.faults) == faults
