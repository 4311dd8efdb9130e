"""To which waypoint an object has been attached, by its status: that is where it is remembered."""

from __future__ import annotations

import re
from typing import Final

from ztunnel.state.field import Field

_NAME = "[a-z0-9-]+/[a-z0-9][a-z0-9.-]*(?<![.-])"
_ATTACHED: Final = re.compile(f'(?:Successfully attached to waypoint |waypoint "(?=[^"]*" is gone))({_NAME})')
"""What the control plane says of what is attached, or was when its waypoint went."""


def read_bound(root: Field) -> str:
    """The waypoint, `namespace/name`, of the condition that says so; what reads otherwise says nothing."""
    status = root.sub("status")
    for one in status.each("conditions") if status else ():
        if one.text("type") == "istio.io/WaypointBound":
            found = _ATTACHED.match(one.text("message"))
            return found[1] if found else ""
    return ""
