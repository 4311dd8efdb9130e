"""A package whose submodules are used without all that the package itself imports.

`import pyroute2.netlink` runs `pyroute2/__init__.py` first, which imports 160 modules: a tenth of a node
proxy's start, and 8 MiB. Its messages need a handful of them. So it is with prometheus_client, whose metrics
come with an HTTP server, a client and WSGI: 2 MiB.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType


class _Deferred(ModuleType):
    """Runs the package's own code when something is asked for that is in none of its submodules."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or self.__dict__.get("_is_run"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if find_spec(f"{self.__name__}.{name}") is not None:
            return import_module(f"{self.__name__}.{name}")
        self.__dict__["_is_run"] = True
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def defer(package: str) -> None:
    """Import `package` without running it yet; nothing where it was imported before, or is not there."""
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is None:
        return
    module = module_from_spec(spec)
    module.__class__ = _Deferred
    sys.modules[package] = module
