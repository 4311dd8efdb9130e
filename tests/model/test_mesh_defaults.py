"""There is one of a mesh."""

from ztunnel.model.mesh_defaults import MESH, MeshDefaults


def test_the_defaults_go_by_one_name():
    assert MeshDefaults().key == MeshDefaults(log_file="/x").key == MESH
