"""The mesh config file is read flat: dotted keys, texts, lines; what is no mapping is a fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.mesh_file import Given, MeshFile


def test_keys_are_dotted_and_keep_their_lines():
    mesh = MeshFile("trustDomain: a\ndefaultConfig:\n  proxyMetadata:\n    SECRET_TTL: 12h\n", "mesh.yaml")
    key = "defaultConfig.proxyMetadata.SECRET_TTL"
    assert mesh.values == {
        "trustDomain": Given("a", "mesh.yaml", 1, "trustDomain"),
        key: Given("12h", "mesh.yaml", 4, key),
    }
    assert not mesh.faults


def test_a_list_is_a_text_with_commas():
    assert MeshFile("a: [x, 1, {y: z}]", "m").values["a"].value == "x,1"


def test_no_text_says_nothing():
    assert (MeshFile("", "m").values, MeshFile("", "m").faults) == ({}, [])


@pytest.mark.parametrize("text", ["a: [\n", "- a\n", "just text", "\x00"])
def test_what_is_no_mapping_is_a_fault_with_its_file(text):
    (fault,) = MeshFile(text, "mesh.yaml").faults
    assert str(fault).startswith("mesh.yaml")


def test_one_that_contains_itself_ends():
    assert set(MeshFile("a: &a {b: *a}", "m").values) == set()


@given(st.text())
def test_any_text_gives_values_or_faults(text):
    MeshFile(text, "m")
