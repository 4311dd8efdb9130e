import json
from dataclasses import replace
from ipaddress import ip_address

from ztunnel.demo.status import as_json, as_text
from ztunnel.demo.survey import NodeStatus, PodStatus, Survey
from ztunnel.errors import Fault

ADDRESSES = (ip_address("10.244.1.2"), ip_address("fd00:244:1::2"))
POD = PodStatus("shop", "a", "n1", ADDRESSES, True, True, "", True, "")
NODE = NodeStatus("n1", (ip_address("10.10.0.11"),), "ready")
GOOD = Survey((NODE,), (POD,), (), plain=False)


def test_what_is_as_it_should_be_is_two_tables() -> None:
    assert as_text(GOOD).splitlines() == [
        "NODE  ADDRESSES   PROXY",
        "n1    10.10.0.11  ready",
        "",
        "NAMESPACE  POD  NODE  ADDRESSES                 MESH  STATE",
        "shop       a    n1    10.244.1.2 fd00:244:1::2  yes   running",
    ]


def test_what_is_not_is_listed_with_its_reason() -> None:
    text = as_text(
        Survey(
            (replace(NODE, proxy="not ready, pending: pods", details=("manifests: x.yaml:1: wrong\x1b",)),),
            (
                replace(POD, enrolled=False, pending="no network namespace yet", outside=2),
                replace(POD, name="b", wanted=False, enrolled=False, unready="httpGet :80/ answers 500"),
                replace(POD, name="c", running=False),
            ),
            (Fault("y.yaml", 3, "kind", "none"),),
            plain=False,
        )
    )
    assert "Details:\n  n1: manifests: x.yaml:1: wrong\n" in text
    assert "Not enrolled:\n  shop/a: no network namespace yet\n" in text
    assert "Not ready:\n  shop/b: httpGet :80/ answers 500\n" in text
    assert text.endswith("Faults of stored objects, which are left out:\n  y.yaml:3: kind: none")
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("shop ")}
    assert "wanted, but 2 older connections" in rows["a"]
    assert rows["b"].endswith("no                               not ready")
    assert rows["c"].endswith("ended")


def test_without_node_proxies_nobody_waits_for_one() -> None:
    survey = Survey(
        (NODE,), (replace(POD, enrolled=False, pending="the proxy is not running"),), (), plain=True
    )
    assert "Not enrolled" not in as_text(survey)


def test_a_program_reads_the_same() -> None:
    found = json.loads(as_json(GOOD))
    assert found["nodes"] == [{"name": "n1", "addresses": ["10.10.0.11"], "proxy": "ready", "details": []}]
    assert found["pods"][0]["addresses"] == ["10.244.1.2", "fd00:244:1::2"]
    assert found["pods"][0]["enrolled"] is True
    assert (found["faults"], found["plain"]) == ([], False)
