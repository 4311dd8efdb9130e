"""Which of our modules run as compiled code: what a wheel of ours brings, and a checkout does not."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES


def compiled_modules() -> list[str]:
    """The dotted names of those that are loaded, sorted; empty where all of us is interpreted."""
    loaded = [(name, getattr(module, "__file__", None)) for name, module in sys.modules.items()]
    return sorted(
        name
        for name, file in loaded
        if file and name.startswith("ztunnel.") and file.endswith(tuple(EXTENSION_SUFFIXES))
    )
