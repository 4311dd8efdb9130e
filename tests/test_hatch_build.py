"""What the wheel holds compiled: the set that pyproject.toml chooses."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hatch_build import CustomBuildHook, c_library, compiled_files, link_flags, toolchain

ROOT = Path(__file__).parents[1]
AWAITING = {"ztunnel/outbound/dial.py"}
"""Compiled all the same, because most of what they do does not await, and tried so by the mesh's tests."""


def configuration() -> dict[str, Any]:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return whole["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]


CHOSEN = compiled_files(ROOT, configuration())


def test_what_was_compiled_serves_the_same_compiler_only(tmp_path: Path, monkeypatch) -> None:
    before = toolchain()
    assert toolchain() == before
    other = tmp_path / "cc"
    other.write_text("#!/bin/sh\necho 1.2.3\n")
    other.chmod(0o755)
    monkeypatch.setenv("CC", f"{other} -m64")
    assert toolchain() != before
    assert "-1.2.3-" in toolchain()


def test_relocations_are_packed_where_the_c_library_can_read_them() -> None:
    """A library that the machine's own cannot load is no use: Ubuntu 22.10 has glibc 2.36 without it."""
    said = subprocess.run(["ldd", "--version"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[0]
    is_new = tuple(map(int, said.split()[-1].split("."))) >= (2, 36)
    assert bool(link_flags(c_library())) <= is_new
    assert link_flags(b"GLIBC_2.36 GLIBC_ABI_DT_RELR") != []
    assert link_flags(b"GLIBC_2.36") == link_flags(b"") == []


@pytest.mark.parametrize("file", [file for file in CHOSEN if file not in AWAITING])
def test_what_is_compiled_awaits_nothing(file: str) -> None:
    nodes = ast.walk(ast.parse((ROOT / file).read_text()))
    awaiting = [node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)]
    assert not awaiting, "exclude the module in pyproject.toml, or move what awaits to one of its own"


def acts(bound: ast.expr) -> bool:
    """Whether it matters how often it is evaluated."""
    calls = [ast.unparse(node.func) for node in ast.walk(bound) if isinstance(node, ast.Call)]
    others = [node for node in ast.walk(bound) if isinstance(node, ast.NamedExpr | ast.Await)]
    return bool(set(calls) - {"len", "min", "max"} or others)


@pytest.mark.parametrize("file", CHOSEN)
def test_no_bound_of_a_slice_does_anything(file: str) -> None:
    """mypyc 2.4 evaluates it twice but for list, tuple, str, bytes: `view[sock.send(view) :]` sends twice."""
    slices = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.Slice)]
    bounds = [bound for each in slices for bound in (each.lower, each.upper) if bound]
    assert not [ast.unparse(bound) for bound in bounds if acts(bound)]


def taken_for_empty(function: ast.FunctionDef) -> list[str]:
    """Attributes that a function sets to `()` or None and reads again after it has called something."""
    seen: list[tuple[int, str, str]] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            kind = "emptied" if ast.unparse(node.value) in ("()", "None") else "filled"
            seen += [(node.lineno, kind, ast.unparse(each)) for each in targets]
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            seen.append((node.lineno, "read", ast.unparse(node)))
    calls = [node.lineno for node in ast.walk(function) if isinstance(node, ast.Call)]
    empty: dict[str, int] = {}
    found = []
    for line, kind, name in sorted(seen):
        if kind == "emptied" and name.startswith("self."):
            empty[name] = line
        elif kind == "filled":
            empty.pop(name, None)
        elif name in empty and any(empty[name] <= call <= line for call in calls):
            found.append(f"{function.name}: {name}, line {line}")
    return found


@pytest.mark.parametrize("file", CHOSEN)
def test_nothing_is_taken_for_empty_that_others_may_have_filled(file: str) -> None:
    """mypyc believes that an attribute is still the `()` or None that the same function has set it to,
    whatever it has called since, and raises TypeError where it is not."""
    nodes = ast.walk(ast.parse((ROOT / file).read_text()))
    assert not [each for node in nodes if isinstance(node, ast.FunctionDef) for each in taken_for_empty(node)]


def test_what_is_taken_for_empty_is_found() -> None:
    source = (
        "def f(self):\n self.a: T = ()\n self.b = ()\n self.g()\n self.b = (1,)\n return self.a or self.b"
    )
    [function] = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert taken_for_empty(function) == ["f: self.a, line 6"]


@pytest.mark.parametrize("file", CHOSEN)
def test_no_class_says_that_an_attribute_is_an_object(file: str) -> None:
    """mypyc 2.4 looks for `object` among the module's own names, and the module cannot be imported."""
    classes = [
        node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.ClassDef)
    ]
    said = [each for node in classes for each in node.body if isinstance(each, ast.AnnAssign)]
    assert not [ast.unparse(each) for each in said if ast.unparse(each.annotation) == "object"]


@pytest.mark.parametrize("file", CHOSEN)
def test_no_constant_is_a_tuple_that_begins_with_a_float(file: str) -> None:
    """mypyc 2.4 takes one whose length is known for not set. `Final[tuple[float, ...]]` is read right."""
    said = [
        node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.AnnAssign)
    ]
    assert not [
        ast.unparse(node.target)
        for node in said
        if ast.unparse(node.annotation) == "Final"
        and isinstance(node.value, ast.Tuple)
        and node.value.elts
        and isinstance(node.value.elts[0], ast.Constant)
        and isinstance(node.value.elts[0].value, float)
    ]


@pytest.mark.parametrize("kind", ["include", "exclude"])
def test_every_pattern_matches_something(kind: str) -> None:
    assert not [pattern for pattern in configuration()[kind] if not any(ROOT.glob(pattern))]


def test_what_is_excluded_and_what_is_no_module_stays_out(tmp_path: Path) -> None:
    for name in ("a/__init__.py", "a/b.py", "a/c.py", "a/d.txt", "b/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    config = {"include": ["a/*.py"], "exclude": ["*/__init__.py", "a/c.py"]}
    assert compiled_files(tmp_path, config) == ["a/b.py"]


def test_a_wheel_is_pure_unless_it_is_asked_for_and_an_editable_install_always(tmp_path: Path) -> None:
    assert configuration()["enable-by-default"] is False
    hook = CustomBuildHook(str(tmp_path), configuration(), None, None, str(tmp_path), "wheel")  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    hook.initialize("editable", changed)
    assert changed == {}
    assert not list(tmp_path.iterdir())
