"""Which processes of the node reach pods, as the kubelet and the container runtime come and go; and our
programs among others."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.kernel.lab import Kernel as Installed
from tests.kernel.lab import Lab, unique
from tests.kernel.test_attached import MULTI, attach
from tests.run.parts import SETTINGS, until
from tests.turns import calls_of
from ztunnel.kernel import bpf, cgroup
from ztunnel.kernel.cgroup import cgroup_id
from ztunnel.pods.find import survey
from ztunnel.redirect.exempt import CgroupBranch
from ztunnel.redirect.load import try_lock
from ztunnel.redirect.plan import Pins
from ztunnel.redirect.repair import Installation
from ztunnel.run.reporting import Reporting
from ztunnel.run.watch import SWEEP_SECONDS, Hooks, NodeClients, watch_node_clients

Rule = tuple[list[int] | None, CgroupBranch | None]


class Kernel:
    """What it was told, newest last."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.broken: OSError | None = None

    def node_clients(
        self, netns_cookie: int, cgroup_ids: Iterable[int] | None, outside: CgroupBranch | None = None
    ) -> None:
        if self.broken is not None:
            raise self.broken
        assert netns_cookie == 7
        self.rules.append((None if cgroup_ids is None else sorted(cgroup_ids), outside))


class Watched:
    def __init__(self, root: Path, who: str) -> None:
        self.root = root
        self.kernel = Kernel()
        self.reporting = Reporting(SETTINGS)
        self.clients = NodeClients(self.kernel, who, 7, self.reporting)

    def look(self) -> Rule:
        self.clients.apply(survey(self.root))
        return self.kernel.rules[-1]

    def tells(self, wanted: int) -> bool:
        return self.kernel.rules[-1][0] == [wanted]

    def said(self, text: str) -> list[str]:
        return [line for line in self.reporting.writer.buffer.waiting if text in line]

    @property
    def ready(self) -> str:
        return self.reporting.readiness.render(0.0)[1]

    @property
    def repairs(self) -> float:
        found = [f for f in self.reporting.figures.families() if f.name == "ztunnel_repairs_total"]
        return dict(found[0].samples)[("node clients",)] if found else 0


@pytest.mark.parametrize(
    ("who", "names", "expected"),
    [
        ("all", ["kubelet", "kubepods"], (None, None)),
        ("node", ["kubelet"], (None, None)),
        ("node", ["kubepods"], (None, "kubepods")),
        ("kubelet", ["kubelet", "kubepods"], (["kubelet"], None)),
        ("kubelet", ["system.slice/k3s-agent.service"], (["system.slice/k3s-agent.service"], None)),
        ("kubelet", [], ([], None)),
    ],
)
def test_who_of_the_node_reaches_pods(tmp_path, who, names, expected):
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    ids, branch = Watched(tmp_path, who).look()
    wanted_ids, wanted_branch = expected
    assert ids == (wanted_ids and [cgroup_id(tmp_path / name) for name in wanted_ids])
    assert branch == (wanted_branch and CgroupBranch(cgroup_id(tmp_path / wanted_branch), 1))


def test_a_machine_without_a_kubelet_is_said_until_there_is_one(tmp_path):
    watched = Watched(tmp_path, "kubelet")
    assert watched.look() == ([], None)
    watched.look()
    assert len(watched.said("no kubelet")) == 1
    assert "ZTUNNEL_NODE_CLIENTS=node" in watched.ready
    (tmp_path / "kubelet.service").mkdir()
    watched.look()
    assert "node clients" not in watched.ready
    assert len(watched.said('cgroups="kubelet.service"') + watched.said("cgroups=kubelet.service")) == 1


def test_what_the_kernel_did_not_take_is_told_it_again(tmp_path):
    watched = Watched(tmp_path, "kubelet")
    watched.kernel.broken = OSError(7, "too long")
    with pytest.raises(OSError, match="too long"):
        watched.look()
    watched.kernel.broken = None
    assert watched.look() == ([], None)


@asynccontextmanager
async def watching(watched: Watched, namespace: int = 0) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_node_clients, watched.clients, watched.root, namespace)
        yield
        nursery.cancel_scope.cancel()


def anew(place: Path) -> int:
    """What systemd does when the service is restarted; a plain directory may get its inode again."""
    place.rename(place.with_name("gone"))
    place.mkdir()
    shutil.rmtree(place.with_name("gone"))
    return cgroup_id(place)


@pytest.mark.parametrize(
    "name",
    ["kubelet", "system.slice/kubelet.service", "a/b/c/k0sworker.service", "kubelet.slice/crio.service"],
)
async def test_a_cgroup_that_is_made_anew_counts_at_once_and_the_old_one_no_more(tmp_path, name):
    place = tmp_path / name
    place.mkdir(parents=True)
    watched = Watched(tmp_path, "kubelet")
    async with watching(watched):
        assert watched.kernel.rules[-1] == ([cgroup_id(place)], None)
        for number in range(1, 4):
            wanted = anew(place)
            with trio.fail_after(3):  # well before the next sweep
                await until(partial(watched.tells, wanted))
            assert watched.repairs >= number


def test_kubelets_of_others_come_and_go_and_nothing_is_said_to_be_repaired(tmp_path):
    (tmp_path / "kubelet.service").mkdir()
    watched = Watched(tmp_path, "kubelet")
    watched.look()
    said = len(watched.said(""))
    other = tmp_path / "machine" / "kubelet.service"
    for number in range(3):
        other.mkdir(parents=True)
        assert len(watched.look()[0]) == 2
        shutil.rmtree(tmp_path / "machine")
        assert watched.look() == ([cgroup_id(tmp_path / "kubelet.service")], None)
        (tmp_path / f"keeps-its-inode-{number}").mkdir()  # the next one is another
    assert watched.repairs == 0
    assert len(watched.said("")) == said


def test_one_that_was_away_for_a_while_and_is_another_was_made_anew(tmp_path):
    place = tmp_path / "kubelet.service"
    place.mkdir()
    watched = Watched(tmp_path, "kubelet")
    watched.look()
    place.rename(tmp_path / "gone")
    assert watched.look() == ([], None)
    assert watched.repairs == 0
    place.mkdir()
    assert watched.look() == ([cgroup_id(place)], None)
    assert watched.repairs == 1


async def test_a_kubelet_that_is_installed_later_counts(tmp_path):
    watched = Watched(tmp_path, "kubelet")
    async with watching(watched):
        assert watched.kernel.rules == [([], None)]
        (tmp_path / "system.slice/k3s-agent.service").mkdir(parents=True)
        with trio.fail_after(3):
            await until(lambda: watched.kernel.rules[-1][0])
        (tmp_path / "system.slice/containerd.service").mkdir(parents=True)
        with trio.fail_after(3):
            await until(lambda: len(watched.kernel.rules[-1][0]) == 2)
        assert "node clients" not in watched.ready


async def test_without_descriptors_what_is_known_counts_and_the_search_goes_on(tmp_path, autojump_clock):
    watched = Watched(tmp_path, "kubelet")
    place = tmp_path / "system.slice/kubelet.service"
    place.mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with watching(watched, os.stat("/proc/self/ns/net").st_ino):
        assert watched.tells(cgroup_id(place))
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            for _ in range(3):
                await trio.sleep(SWEEP_SECONDS)
                await trio.to_thread.run_sync(time.sleep, 0.02)  # that in which it looks has its turn
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert watched.kernel.rules == [([cgroup_id(place)], None)] * len(watched.kernel.rules)
        (tmp_path / "system.slice/containerd.service").mkdir(parents=True)
        with trio.fail_after(60):
            await until(lambda: len(watched.kernel.rules[-1][0]) == 2)


async def test_where_all_but_pods_reach_pods_the_pods_cgroup_may_come_later(tmp_path):
    watched = Watched(tmp_path, "node")
    async with watching(watched):
        assert watched.kernel.rules == [(None, None)]
        (tmp_path / "kubepods.slice").mkdir()
        with trio.fail_after(3):
            await until(lambda: watched.kernel.rules[-1][1] is not None)


@dataclass
class OddKubelet:
    """Runs in a cgroup of another name."""

    place: Path
    process: subprocess.Popen[bytes]


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[OddKubelet]:
    shutil.copy("/bin/sleep", tmp_path / "kubelet")
    place = cgroup.find_root() / unique() / "kit"
    place.mkdir(parents=True)
    words = f"echo $$ > {place}/cgroup.procs; echo; exec {tmp_path}/kubelet 99"
    with subprocess.Popen(["sh", "-c", words], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield OddKubelet(place, process)
        process.kill()
    for left in (place, place.parent):
        if left.exists():
            left.rmdir()


@pytest.mark.root
@pytest.mark.timeout(60)
async def test_a_kubelet_in_a_cgroup_of_another_name_is_found_by_its_process(kubelet, autojump_clock):
    """And stays found while it is started again."""
    watched = Watched(kubelet.place.parent, "kubelet")
    async with watching(watched, os.stat("/proc/self/ns/net").st_ino):
        with trio.fail_after(60):
            await until(lambda: watched.tells(cgroup_id(kubelet.place)))
        kubelet.process.kill()
        kubelet.process.wait()
        await trio.sleep(2.5 * SWEEP_SECONDS)
        assert watched.tells(cgroup_id(kubelet.place))
        kubelet.place.rmdir()
        with trio.fail_after(60):
            await until(lambda: watched.kernel.rules[-1][0] == [])


# --- hooks -----------------------------------------------------------------------------


@dataclass
class Watching:
    """The hooks of a laboratory, as a node proxy watches them."""

    kernel: Installed
    reporting: Reporting = field(default_factory=lambda: Reporting(SETTINGS))

    def __post_init__(self) -> None:
        pins = Pins(self.kernel.settings.pins)
        lock = partial(try_lock, self.kernel.settings)
        maps = self.kernel.redirection.map_descriptors
        self.installation = Installation(pins, self.kernel.lab.root, maps, lock)
        self.hooks = Hooks(self.installation, pins, self.reporting)

    def figure(self, name: str) -> dict[tuple[str, ...], float]:
        return {k: v for f in self.reporting.figures.families() if f.name == name for k, v in f.samples}

    def said(self, text: str) -> list[str]:
        return [line for line in self.reporting.writer.buffer.waiting if text in line]

    @property
    def ready(self) -> str:
        return self.reporting.readiness.render(0.0)[1]


@pytest.fixture
def watching_hooks() -> Iterator[Watching]:
    with Lab() as lab, Installed(lab) as kernel:
        made = Watching(kernel)
        yield made
        made.installation.close()


@pytest.mark.root
@pytest.mark.timeout(60)
def test_hooks_are_repaired_and_counted(watching_hooks):
    made = watching_hooks
    made.hooks.look()
    assert made.figure("ztunnel_repairs_total") == {}
    (made.kernel.settings.pins / "links/connect4").unlink()
    link = bpf.open_pinned(made.kernel.settings.pins / "links/connect6")
    bpf.link_detach(link)
    bpf.close(link)
    made.hooks.look()
    made.hooks.look()
    assert made.figure("ztunnel_repairs_total") == {("link connect6",): 1, ("pins",): 1}
    assert "hooks" not in made.ready


@pytest.mark.root
@pytest.mark.timeout(60)
def test_a_look_costs_no_more_where_other_nodes_pin_beside(watching_hooks):
    """The thread is the engine's, too."""
    made = watching_hooks
    made.hooks.look()
    alone = min(calls_of(made.hooks.look) for _ in range(5))
    assert alone < 1000
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(Installed(made.kernel.lab))
        made.hooks.look()
        assert not made.hooks.neighbours
        # Of each, which programs are attached here, and where its pins are. Other tests' nodes come and go
        # meanwhile, and are looked at once.
        beside = min(calls_of(made.hooks.look) for _ in range(5))
        assert beside < alone + 3 * 300


@pytest.mark.root
@pytest.mark.timeout(60)
def test_another_program_is_told_of_once_shown_and_counted_until_it_goes(watching_hooks):
    made = watching_hooks
    here = os.open(made.kernel.lab.root, os.O_RDONLY)
    with ExitStack() as stack:
        number = attach(stack, here, "cil_sock4", MULTI)
        made.hooks.look()
        made.hooks.look()
        assert len(made.said("another program")) == 1
        assert f"program {number} (cil_sock4, loaded by uid 0) runs after ours on connect4" in made.ready
        assert made.figure("ztunnel_foreign_programs") == {("connect4",): 1}
        assert [each.id for each in made.hooks.neighbours] == [number]
        assert made.reporting.readiness.pending(0.0) == ["state manager"]
    os.close(here)
    made.hooks.look()
    assert len(made.said("another program has gone")) == 1
    assert made.figure("ztunnel_foreign_programs") == {}
    assert "connect4" not in made.ready


@pytest.mark.root
@pytest.mark.timeout(60)
def test_a_hook_that_somebody_takes_for_itself_makes_the_node_not_ready(watching_hooks):
    made = watching_hooks
    here = os.open(made.kernel.lab.root, os.O_RDONLY)
    link = bpf.open_pinned(made.kernel.settings.pins / "links/connect4")
    bpf.link_detach(link)
    bpf.close(link)
    with ExitStack() as stack:
        number = attach(stack, here, "greedy", 0)
        made.hooks.look()
        made.hooks.look()
        assert made.reporting.readiness.pending(0.0) == ["state manager", "hooks"]
        assert (
            f"another program sits exclusively on cgroup/connect4 of {made.kernel.lab.root}: {number}"
            in made.ready
        )
        assert len(made.said("sits exclusively")) == 1
    os.close(here)
    made.hooks.look()
    assert made.reporting.readiness.pending(0.0) == ["state manager"]
    assert made.figure("ztunnel_repairs_total") == {("link connect4",): 1}
