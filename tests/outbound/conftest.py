"""An engine that is driven by hand, and sockets that are closed at the end."""

from __future__ import annotations

from tests.flow.conftest import bugs, clock, engine
from tests.hbone.conftest import contexts, lab
from tests.inbound.conftest import signer, sockets

__all__ = ["bugs", "clock", "contexts", "engine", "lab", "signer", "sockets"]
