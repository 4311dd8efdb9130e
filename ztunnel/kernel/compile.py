"""bcc as a compiler, in a process of its own that exits: C in, relocatable instructions and map specs out.

Importing and running LLVM takes up to 200 MiB and seconds; the proxy carries neither. `compile_text` runs
`python -m ztunnel.kernel.compile`, which reads a request and prints a result, both JSON.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ztunnel.errors import Unsupported
from ztunnel.kernel.bpf import MapSpec

_DISTRIBUTION = Path("/usr/lib/python3/dist-packages")
_LD_IMM64, _PSEUDO_MAP_FD = 0x18, 1


@dataclass(frozen=True, slots=True)
class Function:
    """One program before it is loaded. `maps` gives for each instruction index that loads a map the map's
    name."""

    name: str
    instructions: bytes
    maps: dict[int, str]

    def linked(self, descriptors: dict[str, int]) -> bytes:
        """The instructions with these maps' descriptors in place."""
        code = bytearray(self.instructions)
        for index, name in self.maps.items():
            code[index * 8 + 4 : index * 8 + 8] = descriptors[name].to_bytes(4, sys.byteorder)
        return bytes(code)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one text compiles to."""

    maps: dict[str, MapSpec]
    functions: dict[str, Function]

    def render(self) -> str:
        """As JSON, for the cache."""
        functions = {
            name: {"code": base64.b64encode(each.instructions).decode(), "maps": each.maps}
            for name, each in self.functions.items()
        }
        return json.dumps(
            {"maps": {name: asdict(spec) for name, spec in self.maps.items()}, "functions": functions}
        )


def parse_compiled(text: str) -> Compiled:
    """The inverse of `Compiled.render`. Raises ValueError, KeyError or TypeError on anything else."""
    whole = json.loads(text)
    functions = {
        name: Function(name, base64.b64decode(each["code"]), {int(at): to for at, to in each["maps"].items()})
        for name, each in whole["functions"].items()
    }
    return Compiled({name: MapSpec(**spec) for name, spec in whole["maps"].items()}, functions)


def headers_tree(cache: Path) -> Path:
    """Kernel headers that bcc accepts: of any version, because the programs touch only UAPI structs.

    Debian splits them in two packages; they are joined by symbolic links under `cache`.

    Raises:
        Unsupported: none are installed.
    """
    running = Path("/lib/modules", os.uname().release, "build")
    if (running / "include/linux/kconfig.h").exists():
        return running
    for common in sorted(Path("/usr/src").glob("linux-headers-*-common"), reverse=True):
        for flavour in sorted(Path("/usr/src").glob(common.name.removesuffix("common") + "*")):
            if flavour != common and (flavour / "include/generated").is_dir():
                return _merge((common, flavour), cache / "headers" / flavour.name)
    for whole in sorted(Path("/usr/src").glob("linux-headers-*"), reverse=True):
        if (whole / "include/linux/kconfig.h").exists() and (whole / "include/generated").is_dir():
            return whole
    raise Unsupported("no kernel headers are installed: apt-get install linux-headers-amd64")


def _merge(parts: Sequence[Path], target: Path) -> Path:
    if target.is_dir():
        return target
    building = target.with_name(f"{target.name}.{os.getpid()}")
    building.mkdir(parents=True)
    try:
        sources = [str(part / below) for part in parts for below in ("include", "arch")]
        copied = subprocess.run(["cp", "-rsf", *sources, str(building)], capture_output=True, text=True)
        if copied.returncode:
            raise Unsupported(f"kernel headers cannot be joined in {target}: {copied.stderr.strip()[-300:]}")
        with suppress(OSError):  # another loader was faster
            building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def require_compiler() -> None:
    """bcc is installed. Raises Unsupported."""
    if not any((place / "bcc" / "version.py").is_file() for place in (*map(Path, sys.path), _DISTRIBUTION)):
        raise Unsupported("the eBPF compiler is missing: apt-get install python3-bpfcc")


def compile_text(text: str, flags: Sequence[str], functions: Sequence[str], headers: Path) -> Compiled:
    """Compile in a subprocess.

    Raises:
        Unsupported: bcc is missing, or refuses the text; its last words are in the message.
    """
    require_compiler()
    request = json.dumps({"text": text, "flags": list(flags), "functions": list(functions)})
    package_root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(headers), "PYTHONPATH": search}
    # From Python 3.12 on, the interpreter warns of bcc's own source, and the compiler's words drown in it.
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore::SyntaxWarning", "-m", "ztunnel.kernel.compile"],
        input=request,
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise Unsupported(f"the eBPF programs do not compile: {done.stderr.strip()[-3000:]}")
    return parse_compiled(done.stdout)


def _compile_here(request: dict[str, Any]) -> Compiled:
    """Runs in the subprocess only: it loads LLVM and makes the maps for a moment."""
    if not any((Path(place) / "bcc").is_dir() for place in sys.path):
        sys.path.append(str(_DISTRIBUTION))
    from bcc import BPF, lib

    module = BPF(text=request["text"], cflags=request["flags"])
    names = re.findall(
        r"^BPF_(?:(?:F_)?TABLE\([^,]+,[^,]+,[^,]+,|RINGBUF_OUTPUT\()\s*(\w+)", request["text"], re.MULTILINE
    )
    by_descriptor: dict[int, str] = {}
    maps: dict[str, MapSpec] = {}
    for name in names:
        number = lib.bpf_table_id(module.module, name.encode())
        fd = lib.bpf_table_fd(module.module, name.encode())
        by_descriptor[fd] = name
        maps[name] = map_spec_of(fd, int(lib.bpf_table_flags_id(module.module, number)))
    functions = {
        name: _function(name, module.dump_func(name.encode()), by_descriptor) for name in request["functions"]
    }
    return Compiled(maps, functions)


def map_spec_of(fd: int, flags: int) -> MapSpec:
    """The spec of a map that bcc made."""
    from ztunnel.kernel.bpf import map_spec

    made = map_spec(fd)
    return MapSpec(made.kind, made.key_size, made.value_size, made.max_entries, flags)


def _function(name: str, code: bytes, by_descriptor: dict[int, str]) -> Function:
    maps: dict[int, str] = {}
    blank = bytearray(code)
    for index in range(len(code) // 8):
        at = index * 8
        if code[at] == _LD_IMM64 and code[at + 1] >> 4 == _PSEUDO_MAP_FD:
            maps[index] = by_descriptor[int.from_bytes(code[at + 4 : at + 8], sys.byteorder)]
            blank[at + 4 : at + 8] = bytes(4)
    return Function(name, bytes(blank), maps)


if __name__ == "__main__":
    print(_compile_here(json.load(sys.stdin)).render())
