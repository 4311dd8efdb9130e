"""A build hook that compiles the proxy's hot modules with mypyc, and puts what comes of it into the wheel.

It runs only where HATCH_BUILD_HOOKS_ENABLE is set; without it a wheel is pure Python and complete. Everything
that it makes stands in `.build/mypyc`, nothing beside the sources: an editable install of the same checkout
stays interpreted. (hatch-mypyc of PyPI builds in place, hides pyproject.toml meanwhile, and takes twice as
long.)
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.metadata import version as version_of
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any
from zlib import crc32

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution
from setuptools.command.build_ext import build_ext

# isort: split
from mypyc.build import mypycify  # after setuptools: it builds with what is imported already

OPTIMIZATION = "2"

COMPILE = (
    "-Wno-error",  # a newer compiler warns of more
    "-fvisibility=hidden",  # nobody else's names are looked up, by their texts, when the library is loaded
)


class CustomBuildHook(BuildHookInterface[Any]):
    """What hatchling calls; its configuration is `tool.hatch.build.targets.wheel.hooks.custom`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the libraries to the wheel, which becomes one for this interpreter and machine."""
        if version == "editable":
            return
        root = Path(self.root)
        place = root / ".build" / "mypyc" / toolchain()
        for library in build_libraries(compiled_files(root, self.config), place):
            build_data["force_include"][str(library)] = str(library.relative_to(place / "lib"))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def toolchain() -> str:
    """What compiled objects depend on beside their sources, as a name: those of one machine serve a container
    that has the same, and no other."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    asked = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True, check=False)
    chosen = [str(sysconfig.get_config_var(each)) for each in ("CFLAGS", "EXT_SUFFIX")]
    flags = crc32(" ".join([*chosen, *COMPILE]).encode())
    parts = version_of("mypy"), "".join(platform.libc_ver()), asked.stdout.strip() or compiler, f"{flags:08x}"
    return f"{sys.implementation.cache_tag}-mypy{'-'.join(parts)}-O{OPTIMIZATION}"


def c_library() -> bytes:
    """The C library that this process runs with; empty where it is not glibc's."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next((Path(line.split()[-1]).read_bytes() for line in lines if line.endswith("/libc.so.6")), b"")


def link_flags(library: bytes) -> list[str]:
    """For a machine with this C library. Relocations are packed where it says that it can read that, as not
    every glibc since 2.36 does: 40,000 of them are a megabyte of each process."""
    return ["-Wl,-z,pack-relative-relocs"] if b"GLIBC_ABI_DT_RELR" in library else []


def compiled_files(root: Path, config: Mapping[str, Any]) -> list[str]:
    """The files that match `include` and not `exclude`, relative to `root`."""
    chosen = {path for pattern in config["include"] for path in root.glob(pattern)}
    left_out = {path for pattern in config["exclude"] for path in root.glob(pattern)}
    return sorted(str(path.relative_to(root)) for path in chosen - left_out)


def build_libraries(files: Sequence[str], place: Path) -> list[Path]:
    """The libraries, below `place`/lib as they shall lie in site-packages. The current directory is `files`'.

    What stands in `place` from the last time is used again where the generated C is the same. Types come from
    whatever is installed; that they are right is what `make lint` says.
    """
    extensions = mypycify(
        ["--config-file=", "--ignore-missing-imports", *files],
        opt_level=OPTIMIZATION,
        debug_level="0",
        multi_file=True,
        target_dir=str(place / "c"),
        group_name="ztunnel",
    )
    link = link_flags(c_library())
    for extension in extensions:
        extension.extra_compile_args = [*extension.extra_compile_args, *COMPILE]
        extension.extra_link_args = [*extension.extra_link_args, *link]
    command = _ParallelBuild(Distribution({"name": "ztunnel", "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(place / "lib"), str(place / "o")
    command.parallel = os.cpu_count()  # each module has a library of its own beside the one with all code
    command.ensure_finalized()
    command.run()
    return [Path(output) for output in command.get_outputs()]


class _ParallelBuild(build_ext):
    """One compiler for each core, file by file; setuptools does that for libraries only, and ours is one."""

    def build_extensions(self) -> None:
        compile_some = self.compiler.compile

        def compile_all(sources: Sequence[str], *arguments: Any, **options: Any) -> list[str]:
            with ThreadPool(os.cpu_count()) as pool:
                made = pool.map(lambda one: compile_some([one], *arguments, **options), sources, 1)
            return [name for names in made for name in names]

        self.compiler.compile = compile_all
        super().build_extensions()
