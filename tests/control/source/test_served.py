"""Every kind that is asked for has a reader, and what nobody reads is not kept."""

import pytest

from ztunnel.control.source.document import KINDS
from ztunnel.control.source.served import SERVED, trim


@pytest.mark.parametrize("served", SERVED, ids=lambda served: served.kind)
def test_a_kind_is_asked_for_in_the_versions_that_its_reader_reads(served):
    group = served.candidates[0].group
    assert [one.version for one in served.candidates] == list(KINDS[group, served.kind].versions)
    assert served.reader is KINDS[group, served.kind]
    assert served.strict == group.endswith((".istio.io", "ztunnel.io"))
    custom = group.endswith((".istio.io", "ztunnel.io")) or group.startswith("gateway.")
    assert {one.custom for one in served.candidates} == {custom}


def test_managed_fields_and_annotations_of_others_are_not_kept():
    kept = {
        "istio.io/dry-run": "true",
        "networking.istio.io/traffic-distribution": "x",
        "ztunnel.io/same-node": "y",
        "kubernetes.io/config.hash": "24dc7a2d",
        "kubernetes.io/config.mirror": "24dc7a2d",
    }
    others = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kubernetes.io/config.seen": "x"}
    others |= {"notistio.io/x": "y", "a": "b"}
    meta = {"name": "a", "managedFields": [{}], "annotations": kept | others, "labels": {"x": "y"}}
    assert trim({"metadata": meta, "spec": {}}) == {
        "metadata": {"name": "a", "annotations": kept, "labels": {"x": "y"}},
        "spec": {},
    }


@pytest.mark.parametrize("meta", [None, 7, {"labels": 7, "annotations": []}, {"labels": {"a": 7}}])
def test_what_is_no_object_is_left_for_the_reader_to_say(meta):
    assert trim({"metadata": meta}) == {"metadata": meta}
    assert trim({}) == {}
