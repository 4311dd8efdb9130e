"""A version whose maps have another layout takes over from one that serves, and gives back to it: a program
with other structs, made of this one's files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mesh.lab import Mesh, wait_until
from tests.mesh.test_handover import MANIFESTS as MANIFESTS
from tests.mesh.test_handover import Storm, open_flows, pass_through, proxies
from ztunnel.demo.command import PROGRAM
from ztunnel.kernel.bpf import Map, open_pinned

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

ENVIRONMENT = {"CONNECTION_TERMINATION_DEADLINE": "4s"}
CHECKOUT = Path(__file__).parents[2]
CHANGES = {
    # A value that grows, and a key: entries of the first can be copied, listeners never.
    "redirect/bpf/lib/types.h": (
        ("\tu32 flags;\n\tu32 pad;\n};\n_Static_assert(sizeof(struct pod) == 40",
         "\tu32 flags;\n\tu32 pad;\n\tu64 spare;\n};\n_Static_assert(sizeof(struct pod) == 48"),
        ("\tu16 kind, queue;\n};\n_Static_assert(sizeof(struct listener) == 20",
         "\tu16 kind, queue;\n\tu32 spare;\n};\n_Static_assert(sizeof(struct listener) == 24"),
    ),
    "redirect/layout.py": (
        ('POD: Final = Struct("=16s16sIxxxx")', 'POD: Final = Struct("=16s16sIxxxx8x")'),
        ('LISTENER: Final = Struct("=16sHH")', 'LISTENER: Final = Struct("=16sHH4x")'),
    ),
}  # fmt: skip
SIZES = {
    "this": {"enrolled": (8, 40), "listeners": (20, 8)},
    "other": {"enrolled": (8, 48), "listeners": (24, 8)},
}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with other structs."""
    place = tmp_path_factory.mktemp("other")
    shutil.copytree(
        CHECKOUT / "ztunnel", place / "ztunnel", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    shutil.copytree(CHECKOUT / "bpf", place / "ztunnel" / "redirect" / "bpf")
    for name, changes in CHANGES.items():
        file = place / "ztunnel" / name
        text = file.read_text()
        for before, after in changes:
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        file.write_text(text)
    program = place / "ztunnel-other"
    program.write_text(
        f"#!{sys.executable} -P\nimport sys\nsys.path.insert(0, {str(place)!r})\n"
        "from ztunnel.cli.main import main\nmain()\n"
    )
    program.chmod(0o755)
    return program


@contextmanager
def started_as(program: Path | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        if program is not None:
            patch.setenv(PROGRAM, str(program))
        yield


def sizes(mesh: Mesh) -> dict[str, tuple[int, int]]:
    """Of the pinned maps that differ: key and value."""
    maps = mesh.laboratory.names.pins("node-1") / "maps"
    found = {}
    for name in SIZES["this"]:
        with Map(open_pinned(maps / name)) as pinned:
            found[name] = pinned.spec.key_size, pinned.spec.value_size
    return found


def test_to_another_layout_and_back_no_new_connection_fails(
    mesh: Mesh, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows, storm = open_flows(mesh), Storm(mesh)
    assert sizes(mesh) == SIZES["this"]
    [before] = proxies(mesh, "node-1")
    with storm.raging():
        wait_until(lambda: storm.made > 1000, "the storm rages", 30)
        for program, layout in ((other, "other"), (None, "this")):
            made = storm.made
            with started_as(program, monkeypatch):
                mesh.laboratory.restart_node("node-1")
            assert sizes(mesh) == SIZES[layout]
            wait_until(lambda made=made: storm.made > made + 2000, "it rages on", 40)
    print(f"{storm.made} connections, the longest took {storm.longest_seconds:.2f} s")
    assert storm.failed == []
    assert [before] != proxies(mesh, "node-1")
    for way in ("direct", "a call that leaves the mesh"):
        pass_through(*flows[way])
    pins = mesh.laboratory.names.pins("node-1")
    assert sorted(each.name for each in pins.iterdir() if each.name.startswith("+")) == []
    assert not [each for each in os.listdir(pins.parent) if each.startswith(f"+{pins.name}")]


def test_after_a_crash_too(mesh: Mesh, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program, layout in ((other, "other"), (None, "this")):
        mesh.laboratory.kill_node("node-1")
        with started_as(program, monkeypatch):
            mesh.laboratory.start_node("node-1")
        assert sizes(mesh) == SIZES[layout]
        for where, to in (
            ("shop/caller", "shop/near"),
            ("shop/caller", "shop/called"),
            ("shop/called", "shop/caller"),
        ):
            assert mesh.call(where, mesh.address(to), 8080).answers()


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
