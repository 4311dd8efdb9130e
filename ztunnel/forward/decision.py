"""Whether a connection that a pod only forwards may pass.

Inwards it is one to the pod: policy sees it as its opener called it, before any translation, and without an
identity, because nothing proved one. Outwards it would be the pod's by its address only: what is behind the
pod has not the pod's identity, and nobody could tunnel for it.
"""

from __future__ import annotations

from ztunnel.errors import NoDestination, NotCarried
from ztunnel.inbound.decision import judge_plain
from ztunnel.model.workload import Workload
from ztunnel.redirect.passages import Forwarded
from ztunnel.state.lookup import HBONE_PORT, service_at
from ztunnel.state.meta import FORWARDING
from ztunnel.state.world import World
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter

_OUTWARDS = (
    "forwarded by the pod for something behind it (a container, a VM, a VPN), which has not its identity; "
    f"annotation {FORWARDING}: allow leaves it alone"
)

_TUNNELS = (
    f"tunnels to the pod are translated to something behind it, and end there: leave port {HBONE_PORT} out "
    "of the translation (KubeVirt: list the ports of the interface)"
)


def judge_forwarded(world: World, local: Workload, seen: Forwarded) -> None:
    """Raises ConnectionFailed where it may not pass: Denied by policy, NotCarried outwards, NoDestination
    for tunnels that would not end in the pod."""
    if not seen.inwards:
        raise NotCarried(_OUTWARDS)
    if seen.called.port == HBONE_PORT:
        raise NoDestination(_TUNNELS)
    judge_plain(world, local, seen.opener, seen.called)


def journey_of(world: World, local: Workload | None, seen: Forwarded) -> Journey:
    """What log and metrics say of it."""
    if seen.inwards:
        return Journey(Reporter.DESTINATION, seen.called, world.by_ip(seen.opener.ip), local)
    service = service_at(world, seen.called, local.namespace) if local else None
    return Journey(Reporter.SOURCE, seen.called, local, world.by_ip(seen.called.ip), service)
