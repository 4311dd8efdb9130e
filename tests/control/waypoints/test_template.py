"""The values of the chart that are the same of all waypoints."""

from __future__ import annotations

import json

import pytest

from ztunnel.control.waypoints.template import Template, read_template
from ztunnel.errors import ConfigError


def test_the_template_is_read_as_the_chart_writes_it():
    text = json.dumps({
        "image": "i:1", "control": "https://c:15012", "authority": "", "pullPolicy": "Always",
        "pullSecrets": ["a"], "replicas": 2, "graceSeconds": 9, "scraped": False, "priorityClass": "",
        "env": {}, "resources": {}, "podLabels": {}, "podAnnotations": {}, "placement": {},
    })  # fmt: skip
    assert read_template(text) == Template(
        image="i:1", control="https://c:15012", pull_policy="Always", pull_secrets=("a",), replicas=2,
        grace_seconds=9, scraped=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "it has to be an object"),
        ('{"image": "x"}', "control is missing"),
        ('{"image": 1}', "image: 1 is not known here, or of another type"),
        ('{"replicas": true}', "replicas: true"),
        ('{"replicas": -1}', "replicas: -1"),
        ('{"pullSecrets": [1]}', "pullSecrets: [1]"),
        ('{"scraped": "no"}', "scraped"),
        ('{"pull_policy": "x"}', "pull_policy"),
    ],
)
def test_a_template_that_makes_no_sense_says_where(text, said):
    with pytest.raises(ConfigError) as caught:
        read_template(text)
    assert said in str(caught.value)
    assert "ZTUNNEL_WAYPOINT" in str(caught.value)
