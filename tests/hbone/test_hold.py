"""What a tunnel holds of its session."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ztunnel.hbone import hold
from ztunnel.hbone.carry import Session
from ztunnel.hbone.hold import TunnelSession
from ztunnel.http2.stream import Stream

HBONE = Path(hold.__file__).parent


def imports(name: str) -> set[str]:
    tree = ast.parse((HBONE / f"{name}.py").read_text())
    return {
        node.module.rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ztunnel.hbone")
    }


def test_a_session_is_one() -> None:
    assert issubclass(Session, TunnelSession)
    with pytest.raises(NotImplementedError):
        TunnelSession().left(Stream())


def test_no_module_of_the_package_needs_itself() -> None:
    """Not even for its types."""
    needs = {path.stem: imports(path.stem) for path in HBONE.glob("*.py")}
    while needs:
        free = [name for name, others in needs.items() if not others & needs.keys()]
        assert free, f"a circle: {sorted(needs)}"
        for name in free:
            del needs[name]
