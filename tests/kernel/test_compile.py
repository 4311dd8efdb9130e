from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.lab import CACHE
from ztunnel.errors import Unsupported
from ztunnel.kernel import compile as compiling
from ztunnel.kernel.bpf import MapSpec
from ztunnel.kernel.compile import Compiled, Function, compile_text, parse_compiled

TEXT = """
#include <uapi/linux/bpf.h>
#ifndef STEP
#define STEP 1
#endif
BPF_TABLE("hash", u32, u64, seen, 16);
int note(struct bpf_sock *sock)
{
        u32 family = sock->family;
        u64 *count = seen.lookup(&family);
        if (count)
                *count += STEP;
        return 1;
}
"""


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_text(TEXT, (), ["note"], compiling.headers_tree(CACHE))


@pytest.mark.root
@pytest.mark.timeout(60)
def test_a_text_becomes_maps_and_relocatable_functions(compiled: Compiled) -> None:
    assert compiled.maps == {"seen": MapSpec(1, 4, 8, 16, 0)}
    note = compiled.functions["note"]
    [(index, name)] = note.maps.items()
    assert name == "seen"
    linked = note.linked({"seen": 0x01020304})
    assert linked[index * 8 + 4 : index * 8 + 8] == bytes([4, 3, 2, 1])
    assert linked[: index * 8] == note.instructions[: index * 8]


@pytest.mark.root
@pytest.mark.timeout(60)
def test_flags_reach_the_text_and_errors_the_caller(compiled: Compiled) -> None:
    headers = compiling.headers_tree(CACHE)
    other = compile_text(TEXT, ["-DSTEP=7"], ["note"], headers)
    assert other.functions["note"].instructions != compiled.functions["note"].instructions
    with pytest.raises(Unsupported, match=r"do not compile.*use of undeclared identifier"):
        compile_text(TEXT.replace("*count += STEP", "nonsense"), (), ["note"], headers)


def test_what_is_cached_comes_back() -> None:
    whole = Compiled(
        {"m": MapSpec(1, 2, 3, 4, 5)},
        {"f": Function("f", bytes(range(16)), {0: "m"}), "g": Function("g", b"", {})},
    )
    assert parse_compiled(whole.render()) == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"maps": {}}', '{"maps": {"m": {}}, "functions": {}}'])
def test_a_spoilt_cache_is_told(text) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_compiled(text)


def test_without_the_compiler_the_package_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(compiling, "_DISTRIBUTION", tmp_path)
    monkeypatch.setattr(compiling.sys, "path", [str(tmp_path)])
    with pytest.raises(Unsupported, match="apt-get install python3-bpfcc"):
        compiling.compile_text("", [], [], tmp_path)


def test_headers_that_cannot_be_joined_are_an_error_that_leaves_nothing(tmp_path) -> None:
    with pytest.raises(Unsupported, match="cannot be joined"):
        compiling._merge((tmp_path / "none", tmp_path / "none either"), tmp_path / "cache" / "headers")
    assert list((tmp_path / "cache").iterdir()) == []


def test_headers_are_of_any_version() -> None:
    tree = compiling.headers_tree(CACHE)
    assert (tree / "include/linux/kconfig.h").exists()
    assert Path(tree / "include/generated").is_dir()
