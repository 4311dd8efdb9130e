"""Which names of the mesh a pod is told: those of services with addresses of their own, as ztunnel does
(src/dns/server.rs). Names of an Istio ServiceEntry are known to no other DNS."""

from __future__ import annotations

from ztunnel.state.lookup import service_named
from ztunnel.state.world import World
from ztunnel.zds.question import parse_question, render_addresses


def answer_of_the_mesh(world: World, namespace: str, untrusted: bytes) -> bytes | None:
    """The answer to a query of a pod of that namespace; None where somebody else is to be asked.

    A name without an address of the kind that is asked for has an empty answer: another DNS may know the name
    as well, and would lead past the service.
    """
    question = parse_question(untrusted)
    service = (
        service_named(world, question.name, namespace) if question is not None and question.name else None
    )
    if question is None or service is None or not service.addresses:
        return None
    return render_addresses(question, service.addresses)
