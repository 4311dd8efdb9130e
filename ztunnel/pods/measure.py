"""Measures the pods of a node: connections that are older than the mesh, pods that wait for it, how long one
waited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ztunnel.kernel.processes import age
from ztunnel.pods.enroll import outside_of
from ztunnel.pods.hold import Held
from ztunnel.pods.kubelet import Place
from ztunnel.pods.lifecycle import cause_of
from ztunnel.state.world import World
from ztunnel.telemetry.figures import Sample


def outside(held: Mapping[str, Held], world: Callable[[], World]) -> Iterator[Sample]:
    """For each pod, how many of its connections were made before it was enrolled and still live.

    Others may run between two pods: each costs a system call.
    """
    for uid, each in tuple(held.items()):
        workload = world().workload(uid)
        if workload is not None:
            try:
                live = outside_of(each.enrolled)
            except OSError:
                continue
            each.enrolled.outside = frozenset(one.cookie for one in live)
            yield (workload.namespace, workload.name), len(live)


def pending(reasons: Mapping[str, str], world: World) -> list[Sample]:
    """The pods that are wanted in the mesh and are not in it, or not as they have to be; `reasons` by uid."""
    known = ((world.workload(uid), why) for uid, why in reasons.items())
    return [((workload.namespace, workload.name, cause_of(why)), 1.0) for workload, why in known if workload]


def waited(place: Place, ours_seconds: float) -> float | None:
    """For how many seconds the first process of a pod has run; None where that is older than we are, who run
    for `ours_seconds`, or cannot be told."""
    ran = age(place.path) if place.pod else None
    return ran if ran is not None and ran < ours_seconds else None
