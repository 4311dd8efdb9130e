"""The CustomResourceDefinitions of the chart: valid, however it is installed, and what the reader reads."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.chart import BASE, CHART, ROOT, objects
from tests.state.test_rate_limit_policy import TARGET, asked, limited
from ztunnel.control.source.document import KINDS
from ztunnel.control.source.reading import check
from ztunnel.state.client_selector import _PATHS, _SELECTOR, _TEXTS
from ztunnel.state.rate_limit_policy import _SOURCES, _UNITS

DEFINITION = yaml.safe_load((CHART / "crds" / "ratelimitpolicies.yaml").read_text())
VERSION = DEFINITION["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]["properties"]


def test_it_is_valid_and_in_the_plain_manifests():
    kubernetes_validate.validate(DEFINITION, "1.33", strict=True)
    found = [one for one in objects((BASE / "ztunnel.yaml").read_text()) if one["kind"] == DEFINITION["kind"]]
    assert found == [DEFINITION]


def test_it_names_what_is_read():
    spec, names = DEFINITION["spec"], DEFINITION["spec"]["names"]
    assert DEFINITION["metadata"]["name"] == f"{names['plural']}.{spec['group']}"
    kind = KINDS[spec["group"], names["kind"]]
    assert [each["name"] for each in spec["versions"]] == list(kind.versions)
    rule = SPEC["local"]["properties"]["rules"]["items"]["properties"]
    selector = rule["clientSelectors"]["items"]["properties"]
    entry = SPEC["global"]["properties"]["descriptors"]["items"]["properties"]["entries"]["items"]
    assert sorted(selector) == sorted(_SELECTOR)
    assert rule["limit"]["properties"]["unit"]["enum"] == list(_UNITS)
    assert selector["headers"]["items"]["properties"]["type"]["enum"] == list(_TEXTS)
    assert set(selector["path"]["properties"]["type"]["enum"]) == {*_PATHS, "Distinct"}
    assert set(entry["properties"]["type"]["enum"]) == {"Generic", *_SOURCES}


EXAMPLE = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "rate-limits.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("spec", [limited(requests=1, unit="Hour"), asked()])
def test_what_the_reader_reads_the_server_takes(spec: Any):
    jsonschema.validate({"spec": spec}, SCHEMA)


@pytest.mark.parametrize(
    "spec",
    [
        {"local": {"rules": []}},
        limited(requests=-1, unit="Hour"),
        limited(requests=1, unit="Week"),
        asked(port=0),
        asked(domain=""),
        {"targetRefs": [{"kind": "Service"}]},
        {"targetRefs": [TARGET], "xRateLimitHeaders": "On"},
    ],
)
def test_what_it_refuses_is_refused_when_it_is_written(spec: Any):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"spec": spec}, SCHEMA)


def test_the_example_of_the_documentation_is_one():
    assert EXAMPLE is not None
    jsonschema.validate(yaml.safe_load(EXAMPLE[1]), SCHEMA)
    assert check(EXAMPLE[1], "rate-limits.md") == ()
