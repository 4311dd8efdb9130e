"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
ROOT = HOUSE / "ztunnel"


def words(text: str) -> set[str]:
    return set(text.split())


# Modules with these names act: they wait, open, read a clock or make system calls. Every other one computes.
VERBS = words("""
    accept admit annotate announce answer ask attach authenticate build call capture carry certify check
    classify compute connect defer deploy dial distribute drain drive elect encrypt enforce enroll exempt
    expire export fetch fetch_keys find follow forget forward gather hold inherit join keep linger link listen
    load measure observe originate oversee patch poll prepare probe recall refuse relay renew repair
    replace resolve rotate run secure serve sign splice spoof subscribe teach terminate untaint watch
    watch_secrets
""")
ACTING_PACKAGES = {"kernel", "cli", "demo", "run"}
ACTING_MODULES = {"__main__", "flow/engine", "ca/authority"}

IMPURE = words("""
    trio socket ssl select selectors os subprocess threading time random secrets logging tempfile signal
    shutil ctypes bcc pyroute2
""")
MACHINE_DOORS = {"ctypes", "bcc", "pyroute2"}  # only kernel/ opens them

# Where every error ends: one flow, one connection or one request ends of it, and is counted.
BOUNDARIES = {"run/reporting", "flow/engine", "flow/drive"}

MODULE_LINES = 400
BPF_LINES = 150
GENERATED = ROOT / "xds" / "pb"
UNTESTED = {"__init__": "one sentence", "__main__": "one call"}

MODULES = sorted(path for path in ROOT.rglob("*.py") if GENERATED not in path.parents)
PROGRAMS = sorted((HOUSE / "bpf").rglob("*.[ch]"))
TEXTS = [*MODULES, *PROGRAMS, *sorted((HOUSE / "bench").rglob("*.py"))]


def relative(path: Path) -> str:
    return path.relative_to(HOUSE).as_posix()


def station(path: Path) -> str:
    """`flow/engine` for ztunnel/flow/engine.py."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


def acts(path: Path) -> bool:
    package = path.relative_to(ROOT).parts[0]
    return path.stem in VERBS or package in ACTING_PACKAGES or station(path) in ACTING_MODULES


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports; `from a import b` gives both a and a.b."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(names: Iterator[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def our_modules(names: Iterator[str]) -> set[Path]:
    paths = {HOUSE / (name.replace(".", "/") + ".py") for name in names if name.startswith("ztunnel.")}
    return {path for path in paths if path.exists()}


@pytest.mark.parametrize("path", [path for path in MODULES if not acts(path)], ids=relative)
def test_a_noun_only_computes(path: Path) -> None:
    assert not top_level(imported(path)) & IMPURE
    assert not sorted(relative(ours) for ours in our_modules(imported(path)) if acts(ours))


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != ROOT / "kernel"], ids=relative)
def test_only_the_kernel_package_opens_the_doors_to_the_machine(path: Path) -> None:
    assert not top_level(imported(path)) & MACHINE_DOORS


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_short_and_says_what_it_is(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MODULE_LINES
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem not in UNTESTED], ids=relative)
def test_a_module_has_its_own_test(path: Path) -> None:
    mirrored = path.relative_to(ROOT)
    assert (HOUSE / "tests" / mirrored.with_name(f"test_{mirrored.name}")).exists()


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it catches all errors and does not end by raising them again, as a mere clean-up does."""
    kind = ast.unparse(handler.type) if handler.type else "BaseException"
    last = handler.body[-1]
    return kind in ("Exception", "BaseException") and not (isinstance(last, ast.Raise) and last.exc is None)


@pytest.mark.parametrize("path", [path for path in MODULES if station(path) not in BOUNDARIES], ids=relative)
def test_errors_that_nobody_expects_end_at_a_boundary(path: Path) -> None:
    handlers = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ExceptHandler)]
    assert not [ast.unparse(handler) for handler in handlers if swallows_everything(handler)]


@pytest.mark.parametrize("path", [path for path in MODULES if path != ROOT / "drain.py"], ids=relative)
def test_only_the_drain_module_shields_from_cancellation(path: Path) -> None:
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert not [call for call in calls if "shield" in {keyword.arg for keyword in call.keywords}]


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_a_program_for_the_kernel_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= BPF_LINES


@pytest.mark.parametrize("path", TEXTS, ids=relative)
def test_what_is_to_be_done_has_an_issue(path: Path) -> None:
    marks = [line for line in path.read_text().splitlines() if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line)]
    assert not [line for line in marks if not re.search(r"#\d+", line)]


def circles(knows: Mapping[Path, set[Path]]) -> list[set[Path]]:
    """Groups of modules of which each knows every other one, be it by way of others."""
    numbers = {path: number for number, path in enumerate(knows)}
    reached = [sum(1 << numbers[other] for other in known if other in numbers) for known in knows.values()]
    for middle in range(len(reached)):
        for number, known in enumerate(reached):
            if known >> middle & 1:
                reached[number] |= reached[middle]
    found = [
        {other for other, at in numbers.items() if reached[number] >> at & 1 and reached[at] >> number & 1}
        for number in range(len(reached))
    ]
    return [group for number, group in enumerate(found) if len(group) > 1 and group not in found[:number]]


@pytest.mark.timeout(60)  # every module is read, on machines that are busy
def test_modules_know_each_other_in_one_direction() -> None:
    knows = {path: our_modules(imported(path)) - {path} for path in MODULES}
    found = [{station(path) for path in group} for group in circles(knows)]
    assert not found


def test_a_circle_is_found() -> None:
    a, b, c, d = (Path(name) for name in "abcd")
    assert circles({a: {b}, b: {c}, c: {a}, d: {a}}) == [{a, b, c}]
    assert circles({a: {b}, b: {c}, c: set(), d: {a}}) == []


TOLD = sorted([HOUSE / "THREAT_MODEL.md", HOUSE / "ARCHITECTURE.md", *(HOUSE / "docs").glob("*.md")])


@pytest.mark.parametrize("path", TOLD, ids=relative)
def test_what_a_document_names_is_there(path: Path) -> None:
    named = re.findall(r"`((?:tests|bpf|ztunnel|bench)/[\w/.-]+)`", path.read_text())
    assert not [name for name in named if not (HOUSE / name).exists()]
