"""Watches what a node proxy depends on outside of pods, and keeps the kernel's view of it true: which
processes of the node may reach pods."""

from __future__ import annotations

import math
import os
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import trio

from ztunnel.errors import Unsupported
from ztunnel.kernel.cgroup import cgroup_id
from ztunnel.kernel.inotify import Inotify
from ztunnel.kernel.processes import named
from ztunnel.pods.find import CLIENT_PROCESSES, Client, NodeCgroups, cgroups_of, survey
from ztunnel.redirect.exempt import CgroupRules
from ztunnel.redirect.find import CGROUP_HOOKS, Neighbour, find_neighbours, programs_on
from ztunnel.redirect.plan import Pins
from ztunnel.redirect.repair import Beside, Installation
from ztunnel.run.reporting import Reporting

SWEEP_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_AGAIN_SECONDS = 1.0
"""Between two looks where cgroups come and go all the time."""

_REMEMBERED = 256
"""Cgroups that have gone: one that is there again, and is another, was made anew."""

_CLIENTS, _HOOKS = "node clients", "hooks"


class NodeClients:
    """Which processes of the node's own namespace reach pods: the kubelet's and the container runtime's
    cgroups, which are made anew whenever these restart, or all but pods."""

    def __init__(self, rules: CgroupRules, who: str, netns_cookie: int, reporting: Reporting) -> None:
        """`who` is `kubelet`, `node` or `all` (`Settings.node_clients`)."""
        self._rules = rules
        self._who = who
        self._netns_cookie = netns_cookie
        self._log = reporting.log.scoped(_CLIENTS)
        self._readiness = reporting.readiness
        self._repairs = reporting.repairs
        self._known: NodeCgroups | None = None
        self._seen: dict[Client, int] = {}

    def apply(self, found: NodeCgroups) -> None:
        """These are the cgroups now. Raises OSError, and may be called again."""
        before = self._known
        if before is not None and (before.clients, before.kubepods) == (found.clients, found.kubepods):
            return
        anew = any(self._seen.get(each, number) != number for each, number in found.clients.items())
        if before is not None and None not in (before.kubepods, found.kubepods):
            anew = anew or before.kubepods != found.kubepods
        if self._who == "kubelet":
            self._rules.node_clients(self._netns_cookie, found.clients.values())
            self._tell(found)
        else:
            branch = found.kubepods if self._who == "node" else None
            self._rules.node_clients(self._netns_cookie, None, branch)
        # One that comes for the first time, or goes, was not taken from us: on one machine others may run
        # kubelets of their own, in containers.
        if anew:
            self._repairs.repaired(_CLIENTS)
        gone = [(each, number) for each, number in self._seen.items() if each not in found.clients]
        self._seen = {**dict(gone[-_REMEMBERED:]), **found.clients}
        self._known = found

    def _tell(self, found: NodeCgroups) -> None:
        if found.clients:
            told = self._log.debug if self._known is not None and self._known.clients else self._log.info
            told("node clients", cgroups=", ".join(sorted(client.path for client in found.clients)))
            self._readiness.detail(_CLIENTS, "")
            return
        text = (
            "no cgroup of a kubelet or container runtime (kubelet.service, k3s-agent.service, ...) is there: "
            "probes are judged like any plaintext, which STRICT refuses. The search goes on; "
            "ZTUNNEL_NODE_CLIENTS=node admits every process of the node"
        )
        self._log.warn("no kubelet", reason=text)
        self._readiness.detail(_CLIENTS, text)


class _Survey:
    """Looks for the kubelet and the runtime, in a thread: by the names of cgroups at every change, and now
    and then by processes, which may be anywhere. Where no process is to be seen for a moment, because the
    kubelet is started again, the cgroups of those before count."""

    def __init__(self, root: Path, namespace: int) -> None:
        self._root = root
        self._namespace = namespace
        self._by_process: dict[Client, int] = {}

    def look(self, thoroughly: bool) -> NodeCgroups:
        """Raises OSError where no descriptor is left to look with: then nothing is known of what is there."""
        self._can_open()
        found = self._look(thoroughly)
        self._can_open()
        return found

    def _can_open(self) -> None:
        os.close(os.open(self._root, os.O_RDONLY | os.O_CLOEXEC))

    def _look(self, thoroughly: bool) -> NodeCgroups:
        if thoroughly and self._namespace:
            found = cgroups_of(self._root, named(CLIENT_PROCESSES, self._namespace))
            self._by_process = found or {
                client: number for client, number in self._by_process.items() if self._lasts(client, number)
            }
        surveyed = survey(self._root)
        return replace(surveyed, clients={**self._by_process, **surveyed.clients})

    def _lasts(self, client: Client, number: int) -> bool:
        with suppress(OSError):
            return cgroup_id(self._root / client.path) == number
        return False


async def watch_node_clients(
    clients: NodeClients,
    root: Path,
    namespace: int = 0,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Look again whenever cgroups come or go below `root`, and every few seconds, until cancelled. Started
    when the first look was had. `namespace` is the inode of the node's own network namespace."""
    looking = _Survey(root, namespace)
    thoroughly_at = -math.inf
    with ExitStack() as stack:
        inotify: Inotify | None = None
        with suppress(OSError):  # without it, only every few seconds
            inotify = stack.enter_context(Inotify())
        watched: frozenset[str] = frozenset()
        while True:
            thoroughly = trio.current_time() >= thoroughly_at
            if thoroughly:
                thoroughly_at = trio.current_time() + SWEEP_SECONDS
            try:
                found = await trio.to_thread.run_sync(looking.look, thoroughly)
            except OSError:  # what is known counts meanwhile
                thoroughly_at = -math.inf
                await trio.sleep(_AGAIN_SECONDS)
                continue
            with suppress(OSError):  # tried again
                clients.apply(found)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            if inotify is not None:
                with suppress(OSError):
                    inotify.watch_only(found.parents)
            if found.parents == watched:
                await _change(inotify)
            watched = found.parents  # where they are new, something may have come before they were watched


async def _change(inotify: Inotify | None) -> None:
    """Wait until something has changed, or for a while."""
    with trio.move_on_after(SWEEP_SECONDS):
        if inotify is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.wait_readable(inotify)
            await trio.sleep(_PAUSE_SECONDS)
            inotify.drain()


class Hooks:
    """Our programs on the hooks of the root cgroup: attached, pinned, and who else runs there.

    Attributes:
        neighbours: programs of others that make a difference to us.
    """

    def __init__(self, installation: Installation, pins: Pins, reporting: Reporting) -> None:
        self._installation = installation
        self._beside = Beside(pins)
        self._log = reporting.log.scoped(_HOOKS)
        self._readiness = reporting.readiness
        self._repairs = reporting.repairs
        self._trouble = ""
        self.neighbours: tuple[Neighbour, ...] = ()
        reporting.figures.gauge(
            "ztunnel_foreign_programs",
            "Programs of others on hooks of ours that make a difference to the mesh",
            lambda: [((hook,), count) for hook, count in Counter(n.hook for n in self.neighbours).items()],
            ["hook"],
        )

    def look(self) -> None:
        """See to it once; some 200 us. Never raises."""
        trouble = ""
        try:
            for what in self._installation.look():
                self._repairs.repaired(what)
            self._meet(self._find())
        except (OSError, Unsupported) as error:
            trouble = f"our programs cannot be kept in place: {getattr(error, 'strerror', None) or error}"
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                self._log.error("hooks", reason=trouble)
                self._readiness.pend(_HOOKS)
            else:
                self._readiness.done(_HOOKS)
        self._readiness.detail(_HOOKS, "\n".join(filter(None, (trouble, *(n.text for n in self.neighbours)))))

    def _find(self) -> list[Neighbour]:
        """Whose programs are here is asked only where not all of them are ours."""
        ours, fd = self._installation.programs, self._installation.cgroup_fd
        if programs_on(fd, CGROUP_HOOKS) <= ours:
            return []
        return find_neighbours(fd, CGROUP_HOOKS, ours | self._beside.programs())

    def _meet(self, found: list[Neighbour]) -> None:
        for each in found:
            if each not in self.neighbours:
                self._log.warn("another program", reason=each.text)
        for each in self.neighbours:
            if each not in found:
                self._log.info("another program has gone", reason=each.text)
        self.neighbours = tuple(found)


async def watch_hooks(hooks: Hooks) -> None:
    """Look every few seconds, until cancelled."""
    while True:
        hooks.look()
        await trio.sleep(SWEEP_SECONDS)
