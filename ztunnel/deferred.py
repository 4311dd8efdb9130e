"""A package whose submodules are used without all that the package itself imports; a module that is imported
and not used.

`import pyroute2.netlink` runs `pyroute2/__init__.py` first, which imports 160 modules: a tenth of a node
proxy's start, and 8 MiB. Its messages need a handful of them. So it is with prometheus_client, whose metrics
come with an HTTP server, a client and WSGI: 2 MiB. protobuf imports its own second implementation, in Python,
for nothing: 1 MiB.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType


class _Deferred(ModuleType):
    """Runs the module's own code when something is asked for that is none of its submodules."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or self.__dict__.get("_is_run"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        assert self.__spec__ is not None
        is_package = self.__spec__.submodule_search_locations is not None
        if is_package and find_spec(f"{self.__name__}.{name}") is not None:
            return import_module(f"{self.__name__}.{name}")
        self.__dict__["_is_run"] = True
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def defer(name: str) -> None:
    """Import a module without running it yet; nothing where it was imported before, or is not there. What it
    lies in is run."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return
    if spec is None or name in sys.modules:  # maybe by what it lies in
        return
    module = module_from_spec(spec)
    module.__class__ = _Deferred
    sys.modules[name] = module
    above, _, last = name.rpartition(".")
    if above:
        setattr(sys.modules[above], last, module)
