"""Follows the agent: connects, says hello, answers each of its messages, and connects again."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Protocol

import trio

from ztunnel.zds.connect import AgentSocket, Packet, open_agent
from ztunnel.zds.message import render_hello

_RETRY_SECONDS = 0.01, 2.0
"""The pause doubles from the one to the other. ztunnel goes up to 15 s (src/inpod/workloadmanager.rs), for
which no pod of the node can start once the agent is back; that takes five connections a second."""

_ANSWER_SECONDS = 5.0
"""An agent that takes no answer for so long is none (istio: readWriteDeadline)."""


class Told(Protocol):
    """Who is told what the agent says."""

    def connect(self) -> None:
        """A connection stands: a snapshot follows."""

    def take(self, packet: Packet) -> bytes:
        """Carry out what a packet asks for, and say how it went."""

    def disconnect(self, reason: str) -> None:
        """There is no connection; what is served goes on."""


async def follow(path: Path, told: Told, rng: Random) -> None:
    """Until cancelled."""
    least, most = _RETRY_SECONDS
    pause = least
    while True:
        reason = "the agent has closed the connection"
        try:
            agent, sock = await open_agent(path)
            with sock:
                await _answered(agent, render_hello())
                told.connect()
                while (packet := await agent.receive()) is not None:
                    pause = least  # it speaks
                    with packet:
                        answer = told.take(packet)
                    await _answered(agent, answer)
        except OSError as error:
            reason = str(error)
        except trio.TooSlowError:
            reason = f"the agent takes no answer for {_ANSWER_SECONDS:.0f} s"
        told.disconnect(reason)
        await trio.sleep(pause * rng.uniform(0.8, 1.2))
        pause = min(pause * 2, most)


async def _answered(agent: AgentSocket, message: bytes) -> None:
    with trio.fail_after(_ANSWER_SECONDS):
        await agent.send(message)
