"""Keeps the pods of this node enrolled as the world says: at once when it changes, and by looking again.

A pod that cannot be enrolled stays pending and refused, and is tried again; the node is ready all the same. A
pod that is removed keeps its listeners for a moment, so that whoever does not know of it yet is still served,
and its namespace until its last connection has ended. If it is wanted again before that, it goes on with what
it still has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from ztunnel.config import StrictStart
from ztunnel.kernel.netns import current
from ztunnel.kernel.sockets import DUAL_STACK, Listening
from ztunnel.model.workload import LeftTo, Workload
from ztunnel.pods.announce import Announcer
from ztunnel.pods.classify import Starting
from ztunnel.pods.detached import LeftOut
from ztunnel.pods.enroll import Enrolled, enroll, leave, release, resume, withdraw
from ztunnel.pods.find import Finder
from ztunnel.pods.hold import Held, Ways
from ztunnel.pods.inherit import Predecessor
from ztunnel.pods.kubelet import Place
from ztunnel.pods.lifecycle import Spaces, Told, plan, summary
from ztunnel.pods.listen import CannotEnroll, Listeners
from ztunnel.pods.measure import Entries, outside, pending, register, unenrolled
from ztunnel.pods.probe import ANNOTATED, Neighbours
from ztunnel.pods.refuse import Holders, Refusals
from ztunnel.pods.repair import Reports, Upkeep
from ztunnel.pods.watch import Arrivals
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.held import HeldCall
from ztunnel.state.change import Change
from ztunnel.state.world import World
from ztunnel.telemetry.component import PodFigures
from ztunnel.telemetry.figures import Figures

GRACE_SECONDS = 2.0
"""How long a pod that was removed still answers on its ports: other nodes hear of it within a second."""

_FOUND_AT_ONCE = 32
"""Namespaces that are looked for until others have the thread: two system calls each, where they go by their
names."""

_READINESS, _STRICT_START = "pods", "strict start"


class Pods:
    """The enrolled pods of one node."""

    def __init__(
        self,
        ways: Ways,
        find: Finder,
        reports: Reports,
        listening: Listening = DUAL_STACK,
        starting: Starting | None = None,
    ) -> None:
        """`starting` has the processes of pods that start wait; None: they do not."""
        self._still, self._stepped_back, self._replaced = trio.Lock(), False, False
        self._ways = ways
        self._redirection = ways.redirection
        self._networks = ways.networks
        self._hold = ways.outbound.hold
        self._node = ways.outbound.mesh.node
        self._find = find
        self._log, self._readiness = reports.log, reports.readiness
        self.left_out = LeftOut(reports.readiness, reports.log.warn)
        self._listening = listening
        self._held: dict[str, Held] = {}
        self._parting: dict[str, Held] = {}
        self._upkeep = Upkeep(ways, reports, self._held, listening)
        self._predecessor = Predecessor(self._redirection, reports.log)
        self._pending: dict[str, str] = {}
        self._refusals = Refusals(self._redirection, find)
        self.starting = starting or Starting(self._redirection.starts, StrictStart.OFF, find)
        self._holders = Holders()
        self._arrivals = Arrivals(ways.outbound.engine, self._stir)
        self._told, self._spaces = Told(), Spaces()
        with current() as home:
            self._home = home.cookie
        self._entries = Entries(self.starting, self._log)
        self.announcer = Announcer(self._log, self._readiness)
        self._neighbours = Neighbours(find)
        self._stopping = False
        self._stirred = trio.Event()
        self._figures: PodFigures | None = None
        self._hold.subscribe(self._changed)
        self._readiness.pend(_READINESS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Enroll and withdraw until cancelled; then the pods stay as they are, captured and without a proxy.

        Started when every pod that could be enrolled is.
        """
        self._predecessor.begin()
        self._entries.begin()
        self._arrivals.open()
        try:
            async with trio.open_nursery() as graces:
                await graces.start(self._find.follow, self._stir)
                await self._reconcile(graces)
                task_status.started()
                while True:
                    with trio.move_on_after(self._arrivals.pause(bool(self._pending))):
                        await self._stirred.wait()
                    self._stirred = trio.Event()
                    async with self._still:
                        if not self._replaced:
                            await self._reconcile(graces)
        finally:
            self._arrivals.close()
            self._refusals.close()
            self._predecessor.forget_listeners()
            for held in self._held.values():
                held.let_go()
            for held in self._parting.values():
                held.let_go_removed()
            self._held.clear()
            self._parting.clear()

    def stop_accepting(self) -> None:
        """The process ends: no new connections here, and no more pods. Those captured meanwhile are refused
        until a successor listens."""
        self._stopping = True
        for held in self._all():
            held.refuse()

    # Pods that are let go.

    def leave(self) -> None:
        """The mesh ends here: remove every pod, as if none was wanted."""
        self.left_out.ends = True
        self._stirred.set()

    # A predecessor and a successor.

    def inherit(self, listeners: Mapping[int, Listeners]) -> None:
        """Use a predecessor's listeners, by the cookie of their namespace, in place of new ones. Takes them
        over."""
        self._predecessor.listeners.update(listeners)

    async def hold_back(self) -> None:
        """Take up, enroll and remove nothing, as a successor asks for what we have: until `go_on`, or
        for good after `hand_over`, both by the same task."""
        await self._still.acquire()
        self._stepped_back = True
        for held in self._all():
            held.hold_back()

    def offered(self) -> dict[int, Listeners]:
        """The listeners by the cookie of their namespace; they stay ours."""
        pods = (each.enrolled for each in self._all())
        return {pod.network.cookie: pod.listeners for pod in pods if pod.listeners is not None}

    def hand_over_calls(self) -> list[HeldCall]:
        """The calls that wait for us: here they are over."""
        return [call for held in self._all() for call in held.hand_over_calls()]

    def go_on(self) -> None:
        """Nobody has taken over: undo `hold_back`."""
        for held in self._all():
            held.accept_again()
        self._stepped_back = False
        self._still.release()
        self._stirred.set()

    def hand_over(self) -> None:
        """A successor serves the pods from now on. What lives here goes on."""
        for held in self._parting.values():
            held.go_on()
        self.stop_accepting()
        self._replaced = True
        self._still.release()  # its task may end before us, and Trio takes that ill of the owner of a lock

    def _all(self) -> tuple[Held, ...]:
        return *self._held.values(), *self._parting.values()

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        self._figures = self._entries.figures = PodFigures(figures)
        register(
            figures,
            lambda: outside(self._held, lambda: self._hold.world),
            lambda: pending(self._pending, self._hold.world),
            lambda: unenrolled(self._entries.outside, self._hold.world),
        )

    def dump(self) -> dict[str, dict[str, object]]:
        """The pods by uid, for the configuration dump: `Up`, `Draining` (removed, with connections) or
        `Pending`."""
        shown: dict[str, dict[str, object]] = {
            uid: {"state": "Pending", "reason": why} for uid, why in self._pending.items()
        }
        for state, pods in (("Draining", self._parting), ("Up", self._held)):
            shown.update({uid: held.show(state) for uid, held in pods.items()})
        shown.update({uid: {"state": "LeftAlone", "reason": why} for uid, why in self.left_out.left.items()})
        for uid, each in shown.items():
            each.update(self._entries.show(uid), **self.announcer.show(uid))
        return dict(sorted(shown.items()))

    def _changed(self, before: World, world: World, change: Change) -> None:
        for uid in change.workloads:
            was, now = before.workload(uid), world.workload(uid)
            self._spaces.change(was, now)
            self._entries.changed(uid, was, now)
        if self._node in change.nodes:
            self._stir()

    async def _reconcile(self, graces: trio.Nursery) -> None:
        """Enroll and remove as the world wants. Between two pods others have the thread: a storm of pods must
        not stall what flows."""
        wanted = self.left_out.wanted(self._hold.world.on_node(self._node))
        found = await self._find_all(wanted)
        inodes = {uid: place.inode if place else None for uid, place in found.items()}
        held = {uid: each for uid, each in self._held.items() if not each.outlives(self._hold.world)}
        todo = plan(inodes, {uid: (each.inode, each.exists) for uid, each in held.items()})
        self._entries.excuse(self.left_out.apart)
        self._entries.only(wanted)
        self._neighbours.only(wanted)
        ours = [uid for uid in todo.waiting if wanted[uid].left_to is LeftTo.NOBODY]
        left = {uid: ANNOTATED for uid in todo.waiting if uid not in ours}
        self._pending = {uid: self._find.missing(wanted[uid]) for uid in ours}
        for uid in todo.drop:
            self._drop(uid)
            await trio.lowlevel.checkpoint()
        for uid in todo.withdraw:
            self._withdraw(uid, graces)
            await trio.lowlevel.checkpoint()
        for uid in todo.enroll if not self._stopping else ():
            place = found[uid]
            if place is not None:
                port = self._enroll_pod(wanted[uid], place)
                await self._name_holder(uid, place, port)
            await trio.lowlevel.checkpoint()
        left.update((uid, each.reason) for uid, each in self._neighbours.alone.items())
        self.left_out.leave(left)
        await self._settle_refusals(wanted)
        self._pending.update(await self._upkeep.refresh(wanted, self._parting))
        await self._let_go()
        pending = (wanted[uid] for uid in self._pending if uid in wanted)
        await self._predecessor.withdraw({ip for workload in pending for ip in workload.addresses})
        if not self._pending:
            self._predecessor.forget_listeners()
        self._classify()
        enrolled = {uid: each.enrolled.network.cookie for uid, each in self._held.items()}
        self.left_out.remember({**self._refusals.cookies(), **enrolled})
        self._tell()

    async def _find_all(self, wanted: Mapping[str, Workload]) -> dict[str, Place | None]:
        found: dict[str, Place | None] = {}
        for uid, workload in wanted.items():
            found[uid] = self._find.find(workload)
            if len(found) % _FOUND_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return found

    # Enrolling.

    def _enroll_pod(self, workload: Workload, place: Place) -> int:
        """Enroll it, or have it refused. Returns the port that somebody has taken from us, mostly 0."""
        uid = workload.uid
        held = self._parting.get(uid)
        if held is not None and held.inode != place.inode:
            self._parting.pop(uid).end()
            held = None
        try:
            if held is None and self._neighbours.look(workload, place):
                return 0
            if held is None:
                held = self._parting[uid] = self._enroll(workload, place)
            else:
                resume(self._redirection, workload, held.enrolled, self._listening)
            held.listen()
        except (CannotEnroll, OSError) as error:
            self._pending[uid] = str(error)
            self._refuse(workload, place)
            return error.port if isinstance(error, CannotEnroll) else 0
        held.go_on()
        self._held[uid] = self._parting.pop(uid)
        self._networks[uid] = held.enrolled.network
        held.want(workload.identity)
        if self._figures is not None:
            self._figures.started()
        self._log.info("pod enrolled", pod=f"{workload.namespace}/{workload.name}", netns=held.place.path)
        self._entries.enrolled(workload, place, is_known=held.was_known)
        return 0

    def _refuse(self, workload: Workload, place: Place) -> None:
        """Until it is enrolled nothing leaves or reaches it."""
        uid = workload.uid
        others = {**self._held, **self._parting}
        spared = {self._home, *(each.enrolled.network.cookie for one, each in others.items() if one != uid)}
        try:
            cookie = self._refusals.refuse(uid, place, workload.addresses, spared)
        except OSError as error:
            self._pending[uid] += f"; and it cannot be refused: {error}"
            return
        if cookie is not None:
            self._entries.refused(uid, place, is_known=self._predecessor.took_over(cookie))

    async def _settle_refusals(self, wanted: Mapping[str, Workload]) -> None:
        pending = [uid for uid in self._pending if uid in wanted and uid not in self._held]
        try:
            for uid in self._refusals.over(pending):
                self._refusals.let_go(uid, {each.enrolled.network.cookie for each in self._held.values()})
                await trio.lowlevel.checkpoint()
        except OSError as error:
            self._log.warn("refused pod not released", error=str(error))

    async def _name_holder(self, uid: str, place: Place, port: int) -> None:
        """Say which process has taken our port."""
        if port:
            who = await self._holders.find(place.path, port)
            self._pending[uid] += f": {who}" if who else ""

    def _enroll(self, workload: Workload, place: Place) -> Held:
        enrolled = enroll(self._redirection, workload, place, self._predecessor.left, self._listening)
        held = Held(self._ways, enrolled, place, self._find, self._stir)
        held.was_known = self._predecessor.took_over(enrolled.network.cookie)
        self._predecessor.listeners.pop(enrolled.network.cookie, None)
        return held

    def _stir(self) -> None:
        if not self._stepped_back:  # a successor says by now who has to wait
            self._classify()
        self._stirred.set()

    def _classify(self) -> None:
        """At once, and not when all that is to be enrolled is: a pod may start meanwhile."""
        trouble = ""
        try:
            inside = self._held.keys() | self.left_out.apart | self.left_out.left.keys()
            self.starting.look(self._hold.world.on_node(self._node), inside, self._spaces)
            trouble = self.starting.trouble
            for name in self.starting.ended():
                self._entries.missed("/".join(name))
        except OSError as error:
            trouble = f"pods that start cannot be made to wait: {error}"
        self._readiness.detail(_STRICT_START, trouble)

    # Removing.

    def _withdraw(self, uid: str, graces: trio.Nursery) -> None:
        """Remove a pod. Its new connections are its own at once."""
        held = self._held[uid]
        held.let_in()
        if not self._uncapture(uid, held, leave):
            return
        self._log.info("pod withdrawn", pod=uid)
        self._ways.handshakes.drain(uid)
        self._parting[uid] = held
        held.grace = trio.CancelScope()
        graces.start_soon(held.linger, held.grace, GRACE_SECONDS, lambda: uid in self._refusals)

    def _drop(self, uid: str) -> None:
        """The pod is gone with its namespace: nothing of it can be served any more."""
        held = self._held[uid]
        if self._uncapture(uid, held, withdraw):
            held.end()
            self._log.info("pod gone", pod=uid)

    def _uncapture(self, uid: str, held: Held, how: Callable[[Redirection, Enrolled], None]) -> bool:
        """Whether the kernel leaves the pod alone from now on; where it refuses, it is tried again."""
        try:
            how(self._redirection, held.enrolled)
        except OSError as error:
            self._pending[uid] = f"cannot be removed: {error}"
            return False
        del self._held[uid]
        self._networks.pop(uid, None)
        if self._figures is not None:
            self._figures.stopped()
        return True

    async def _let_go(self) -> None:
        """Let go of the namespaces whose last proxied connection has ended, or that are gone."""
        for uid, held in tuple(self._parting.items()):
            if not held.exists:
                self._parting.pop(uid).end()
            elif held.idle:
                release(self._parting.pop(uid).enrolled)
            else:
                continue
            await trio.lowlevel.checkpoint()

    def _tell(self) -> None:
        """Readiness: every pod that the world wants here was tried. One that cannot be enrolled is named, and
        costs only itself: a node that is not ready would stop an upgrade for its sake."""
        self.announcer.look(self._held, self._hold.world)
        if self._figures is not None:
            self._figures.show(len(self._held), len(self._pending))
        for uid, why in self._told.fresh(self._pending, trio.current_time()):
            self._log.warn("pod pending", pod=uid, reason=why)
        self._readiness.done(_READINESS)
        self._readiness.detail(_READINESS, summary(self._pending))
