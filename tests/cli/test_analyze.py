"""`ztunnel analyze`: exit status, threshold, formats, the list of what is looked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.analyze.parts import AMBIENT, WEB
from tests.analyze.test_findings import BROKEN, PORT
from tests.analyze.test_load import written
from ztunnel.analyze.finding import CODES
from ztunnel.cli.main import main


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["analyze", *map(str, words)])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return written(tmp_path, shop=f"{AMBIENT}---\n{WEB}")


def test_a_folder_without_findings_says_so(shop: Path) -> None:
    found = call(shop)
    assert (found.exit_code, found.output) == (
        0,
        "✔ No validation issues found when analyzing all namespaces.\n",
    )
    assert "analyzing namespace: shop." in call(shop, "-n", "shop").output


def test_the_exit_status_follows_the_threshold(shop: Path) -> None:
    written(shop, port=PORT)
    assert call(shop).exit_code == 0
    assert call(shop, "--failure-threshold", "info").exit_code == 1
    written(shop, broken=BROKEN)
    found = call(shop)
    assert found.exit_code == 1
    assert found.output.startswith("Error [IST0106] ")
    assert "broken.yaml:4" in found.output
    assert "Info [IST0118] (Service shop/s " in found.output


def test_formats_say_the_same(shop: Path) -> None:
    written(shop, port=PORT)
    as_json = json.loads(call(shop, "-o", "json").output)
    assert as_json == yaml.safe_load(call(shop, "-o", "yaml").output)
    assert [(one["code"], one["level"], one["what"]) for one in as_json] == [
        ("IST0118", "Info", "Service shop/s")
    ]


def test_it_lists_what_it_looks_for() -> None:
    lines = call("-L").output.splitlines()
    assert [line.split()[0] for line in lines] == [each.code for each in CODES]


def test_a_suppression_is_checked(shop: Path) -> None:
    written(shop, port=PORT)
    assert "No validation issues" in call(shop, "--suppress", "IST0118=Service shop/*").output
    found = call(shop, "--suppress", "IST9999=x")
    assert found.exit_code == 2
    assert "no code 'IST9999'" in found.output
