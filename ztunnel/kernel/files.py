"""How many files this process may have open."""

from __future__ import annotations

import resource


def raise_limit() -> None:
    """As many as may be had: each connection takes two descriptors (Istio's ztunnel does the same)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
