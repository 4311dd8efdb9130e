"""Takes over what a predecessor of this process has left: listeners that it has handed over, and pods that
the kernel still redirects."""

from __future__ import annotations

from collections.abc import Collection

import trio

from ztunnel.model.address import IPAddress
from ztunnel.pods.enroll import Left
from ztunnel.pods.listen import Listeners
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.enroll import EnrolledPod
from ztunnel.telemetry.export import Log


class Predecessor:
    """What it has left, and nobody has taken over yet, by the cookies of namespaces.

    Attributes:
        listeners: empty after a crash. They are ours.
    """

    def __init__(self, redirection: Redirection, log: Log) -> None:
        self.listeners: dict[int, Listeners] = {}
        self._redirection, self._log = redirection, log
        self._pods: dict[int, EnrolledPod] = {}

    def begin(self) -> None:
        """See which pods the kernel redirects."""
        self._pods = self._redirection.enrolled()

    @property
    def left(self) -> Left:
        """For `enroll`."""
        return Left(self._pods, self.listeners)

    def took_over(self, cookie: int) -> bool:
        """This pod is enrolled or refused by us from now on; whether the kernel has had it before."""
        return self._pods.pop(cookie, None) is not None

    def forget_listeners(self) -> None:
        """Nobody needs them any more: their pods have left."""
        for listeners in self.listeners.values():
            listeners.close()
        self.listeners.clear()

    async def withdraw(self, pending: Collection[IPAddress]) -> None:
        """Let pods go that left the mesh, or vanished, while no proxy ran; others have the thread after each.

        Args:
            pending: addresses of pods that are wanted and could not be enrolled yet. Such a pod stays
                captured, because otherwise it would talk in plaintext.
        """
        for cookie, pod in tuple(self._pods.items()):
            if not pod.addresses.isdisjoint(pending):
                continue
            try:
                self._redirection.withdraw_cookie(cookie)
            except OSError as error:
                self._log.warn("pod of an earlier run not removed", cookie=cookie, error=str(error))
                continue
            del self._pods[cookie]
            await trio.lowlevel.checkpoint()
