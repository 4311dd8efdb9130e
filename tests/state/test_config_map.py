"""Of a ConfigMap the mesh config is read, and nothing else."""

import pytest

from ztunnel.control.source.reading import parse
from ztunnel.state.config_map import ConfigMap


def read(data):
    (found,) = parse(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: b}}\n{data}\n").found
    return found


@pytest.mark.parametrize(
    ("data", "mesh"),
    [
        ("", None),
        ("data: {}", None),
        ("data: {other: x}\nbinaryData: {a: AA==}\nimmutable: true", None),
        ("data:\n  mesh: |-\n    a: b", "a: b"),
        ("data: {mesh: ''}", ""),
    ],
)
def test_the_text_under_mesh_is_kept(data, mesh):
    one = read(data).object
    assert isinstance(one, ConfigMap)
    assert (one.meta.name, one.meta.namespace, one.mesh) == ("a", "b", mesh)


def test_a_mesh_config_that_is_no_text_is_a_fault():
    (fault,) = read("data: {mesh: {a: b}}").faults
    assert (fault.field, fault.message) == ("data.mesh", "must be a string, is a mapping")
