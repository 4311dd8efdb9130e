"""docs/operations.md names everything that an operator can set, or see."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

import pytest

from tests.deploy.chart import ROOT
from ztunnel.config import Settings

pytestmark = pytest.mark.timeout(60)

TEXT = (ROOT / "docs" / "operations.md").read_text()
NAME = re.compile(r"(ztunnel|istio|pilot|citadel|workload_manager)_[a-z_]+")


def test_every_setting_is_there_and_no_other():
    sources = [one.metadata["source"] for one in fields(Settings) if "source" in one.metadata]
    table = TEXT[TEXT.index("## Every setting") : TEXT.index("## Every metric")]
    named = [name for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in row.split(", ")]
    assert [name.strip("`") for name in named] == [name for source in sources for name in source.variables]


def test_every_metric_is_there_and_no_other():
    found = set()
    for path in (ROOT / "ztunnel").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                if len(texts) > 1 and isinstance(texts[0], str) and NAME.fullmatch(texts[0]):
                    found.add(texts[0])
    table = TEXT[TEXT.index("## Every metric") :]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == found
