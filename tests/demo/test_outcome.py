from itertools import count

import pytest

from ztunnel.demo.assign import Objects
from ztunnel.demo.cluster import cluster, difference
from ztunnel.demo.manifest import Key, parse
from ztunnel.demo.outcome import check_completed, outcome
from ztunnel.demo.schedule import complete, relabel
from ztunnel.errors import ConfigError

UIDS = map(str, count())
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 2
  selector: {matchLabels: {app: d}}
  template: {metadata: {labels: {app: d}}, spec: {containers: [{name: d}]}}
"""


def completed(text: str, before: Objects | None = None) -> Objects:
    return complete(before or {}, parse(text, "x.yaml"), lambda: next(UIDS))


def said(key: Key, before: Objects, after: Objects) -> str:
    return outcome(key, before, after, difference(cluster(before), cluster(after)))


def test_a_pod_is_added_changed_restarted_or_left() -> None:
    key, once = Key("", "Pod", "default", "a"), completed(POD)
    assert said(key, {}, once) == "added"
    assert said(key, once, completed(POD, once)) == "unchanged"
    assert said(key, once, completed(POD.replace("a}", "a, labels: {x: y}}"), once)) == "changed"
    assert said(key, once, completed(POD + "spec: {containers: [{name: x}]}\n", once)) == "restarted"
    assert said(key, once, {k: v for k, v in once.items() if k != key}) == "removed"


def test_a_workload_says_what_became_of_its_pods() -> None:
    key, once = Key("apps", "Deployment", "default", "d"), completed(DEPLOYMENT)
    assert said(key, {}, once) == "added, 2 pods started"
    fewer = completed(DEPLOYMENT.replace("replicas: 2", "replicas: 1"), once)
    assert said(key, once, fewer) == "changed, 1 pod stopped"
    other = completed(DEPLOYMENT.replace("name: d}]", "name: e}]"), once)
    assert said(key, once, other) == "changed, 2 pods started, 2 pods stopped"
    none = {k: v for k, v in once.items() if k.kind not in ("Deployment", "Pod")}
    assert said(key, once, none) == "removed, 2 pods stopped"


def test_what_node_proxies_would_refuse_is_not_handed_to_them() -> None:
    once = completed(POD)
    check_completed({}, once)
    key = Key("", "Pod", "default", "a")
    wrong = {**once, key: relabel(once[key], {"a b": "c"})}
    with pytest.raises(
        ConfigError, match=r"^x.yaml:1: Pod default/a: metadata.labels\[a b\]: not a label's name"
    ):
        check_completed(once, wrong)
    check_completed(wrong, wrong)  # what was there before is not judged again
