"""How long a decision takes in a large world: where a connection goes, and whether it may.

python -m bench.large.decide WORKLOADS    prints one line of JSON, seconds
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from statistics import median

from bench.large.resources import PORT, workload, world
from ztunnel.errors import Denied
from ztunnel.inbound.decision import Arrival, judge_tunnel
from ztunnel.model.address import Endpoint, OriginalDestination
from ztunnel.outbound.decision import Context, ToTunnel, decide
from ztunnel.state.delta import apply
from ztunnel.state.world import World

DECISIONS = 5000


def decisions(known: World, workloads: int, number: int, rng: Random) -> list[float]:
    """Seconds of so many, each about another pair: both ends' together, as if this node had both."""
    seconds = []
    for _ in range(number):
        source, wanted = (known.workloads[workload(rng.randrange(workloads)).uid] for _ in range(2))
        service = known.services_named(next(iter(wanted.services)).hostname)[0]
        called = OriginalDestination(service.addresses[0], 80)
        context = Context(source.node, rng)
        begun = time.perf_counter()
        outcome = decide(known, source, called, context)
        assert isinstance(outcome, ToTunnel)
        with suppress(Denied):
            arrival = Arrival(
                outcome.authority, outcome.endpoint, Endpoint(source.addresses[0], 40000), source.identity
            )
            judge_tunnel(known, outcome.destination, arrival)
        seconds.append(time.perf_counter() - begun)
    return seconds


def main(words: Sequence[str]) -> None:
    """The command."""
    workloads = int(words[0])
    known, _ = apply(World(), world(workloads))
    gc.collect()
    gc.freeze()
    found = decisions(known, workloads, DECISIONS, Random(1))
    print(json.dumps({"seconds": median(found), "port": PORT}))


if __name__ == "__main__":
    main(sys.argv[1:])
