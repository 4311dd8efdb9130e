"""What somebody detaches or unpins is put back, by a proxy that lives, and left to a successor."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.kernel.lab import Kernel, Lab, wait_until
from tests.kernel.test_attached import ALLOW
from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf
from ztunnel.kernel.attached import attached
from ztunnel.redirect import load
from ztunnel.redirect.find import CGROUP_HOOKS
from ztunnel.redirect.plan import HOOKS, SK_LOOKUP, Pins
from ztunnel.redirect.repair import Beside, Installation, PodLinks, programs_beside

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def opened(kernel: Kernel) -> Installation:
    maps = kernel.redirection.map_descriptors
    lock = partial(load.try_lock, kernel.settings)
    return Installation(Pins(kernel.settings.pins), kernel.lab.root, maps, lock)


@pytest.fixture
def installation(kernel: Kernel) -> Iterator[Installation]:
    made = opened(kernel)
    yield made
    made.close()
    made.close()


def pinned(pins: Path) -> dict[str, int | str]:
    """All that is pinned, by name, with its number."""
    found: dict[str, int | str] = {}
    for place in sorted(pins.rglob("*")):
        name = str(place.relative_to(pins))
        if place.is_symlink():
            found[name] = os.readlink(place)
        elif place.is_file():
            fd = bpf.open_pinned(place)
            found[name] = bpf.object_id(fd)
            bpf.close(fd)
    return found


def attached_to(lab: Lab) -> list[int]:
    fd = os.open(lab.root, os.O_RDONLY)
    try:
        return [number for hook in CGROUP_HOOKS for number in attached(fd, hook.hook).programs]
    finally:
        os.close(fd)


def test_where_all_is_in_place_nothing_is_done(kernel: Kernel, installation: Installation) -> None:
    before = pinned(kernel.settings.pins)
    assert installation.look() == []
    assert installation.look() == []
    assert pinned(kernel.settings.pins) == before
    assert installation.programs == {before[f"programs/{hook.name}"] for hook in HOOKS}


@pytest.mark.parametrize("hook", CGROUP_HOOKS, ids=lambda hook: hook.name)
def test_a_link_that_somebody_detaches_is_attached_again(kernel: Kernel, installation, hook) -> None:
    place = kernel.settings.pins / "links" / hook.name
    before = attached_to(kernel.lab)
    fd = bpf.open_pinned(place)
    bpf.link_detach(fd)
    bpf.close(fd)
    assert attached_to(kernel.lab) != before
    assert installation.look() == [f"link {hook.name}"]
    assert sorted(attached_to(kernel.lab)) == sorted(before)
    assert installation.look() == []
    load.ensure_loaded(kernel.settings)  # what is pinned is current
    assert sorted(attached_to(kernel.lab)) == sorted(before)


@pytest.mark.parametrize("hook", CGROUP_HOOKS, ids=lambda hook: hook.name)
def test_a_link_that_somebody_gives_another_program_gets_ours_again(
    kernel: Kernel, installation, hook
) -> None:
    before = attached_to(kernel.lab)
    link = bpf.open_pinned(kernel.settings.pins / "links" / hook.name)
    other = bpf.prog_load(bpf.Program("other", hook.kind, hook.hook, ALLOW))
    bpf.link_update(link, other)
    for fd in (link, other):
        bpf.close(fd)
    assert attached_to(kernel.lab) != before
    assert installation.look() == [f"link {hook.name}"]
    assert attached_to(kernel.lab) == before


REMOVED: dict[str, Callable[[Path], object]] = {
    "a link": lambda pins: (pins / "links/connect4").unlink(),
    "a map": lambda pins: (pins / "maps/enrolled").unlink(),
    "a program": lambda pins: (pins / "programs/connect6").unlink(),
    "the version": lambda pins: (pins / "version").unlink(),
    "a folder": lambda pins: shutil.rmtree(pins / "links"),
    "everything": shutil.rmtree,
}


@pytest.mark.parametrize("what", REMOVED)
def test_what_somebody_unpins_stays_in_force_and_is_pinned_again(kernel: Kernel, installation, what) -> None:
    kernel.enroll("a")
    pins, programs = kernel.settings.pins, attached_to(kernel.lab)
    before = pinned(pins)
    REMOVED[what](pins)
    assert attached_to(kernel.lab) == programs
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(kernel.lab.a, "10.77.0.3", 80)
    assert installation.look() == ["pins"]
    kernel.redirection.look(kernel.lab.pod("a"))
    assert pinned(pins) == before
    assert installation.look() == []


def test_what_is_both_detached_and_unpinned_is_put_back(kernel: Kernel, installation: Installation) -> None:
    pins, before = kernel.settings.pins, attached_to(kernel.lab)
    load.remove(pins)
    assert attached_to(kernel.lab) == []
    assert installation.look() == [*(f"link {hook.name}" for hook in CGROUP_HOOKS), "pins"]
    assert sorted(attached_to(kernel.lab)) == sorted(before)
    assert installation.look() == []
    assert not load.ensure_loaded(kernel.settings)


def test_another_object_of_the_same_name_gives_way_to_ours(
    kernel: Kernel, installation: Installation
) -> None:
    assert installation.look() == []
    place = kernel.settings.pins / "maps/enrolled"
    before = pinned(kernel.settings.pins)
    other = bpf.map_create("enrolled", bpf.MapSpec(1, 8, 8, 8, 0))
    bpf.set_pinned(other, place)
    bpf.close(other)
    assert installation.look() == ["pins"]
    assert pinned(kernel.settings.pins) == before


def test_a_successors_programs_are_left_alone(kernel: Kernel, installation: Installation) -> None:
    successor = kernel.lab.settings(max_verdicts=100)
    object.__setattr__(successor, "pins", kernel.settings.pins)
    assert load.ensure_loaded(successor)
    after = attached_to(kernel.lab)
    assert not installation.programs & set(after)
    for _ in range(2):
        assert installation.look() == []
    shutil.rmtree(kernel.settings.pins / "links")
    assert installation.look() == []


def test_while_a_loader_works_nothing_is_touched(kernel: Kernel, installation: Installation) -> None:
    (kernel.settings.pins / "version").unlink()
    with load._locked(kernel.settings.cache, kernel.settings.pins.name):
        assert installation.look() == []
    assert installation.look() == ["pins"]


def test_a_bpffs_that_is_unmounted_takes_nothing_out_of_force(lab: Lab, tmp_path: Path) -> None:
    place = tmp_path / "bpf"
    place.mkdir()
    mount = ["mount", "-t", "bpf", "bpf", str(place)]
    subprocess.run(mount, check=True)
    try:
        with Kernel(lab) as kernel:
            load.remove(kernel.settings.pins)
        kernel = Kernel(lab)
        object.__setattr__(kernel.settings, "pins", place / "node")
        with kernel:
            installation = opened(kernel)
            programs = attached_to(lab)
            subprocess.run(["umount", "--lazy", str(place)], check=True)  # we hold its directory
            assert attached_to(lab) == programs
            with pytest.raises(Unsupported, match="is on no bpffs"):
                installation.look()
            assert attached_to(lab) == programs
            subprocess.run(mount, check=True)
            assert installation.look() == ["pins"]
            assert installation.look() == []
            installation.close()
        assert wait_until(lambda: not attached_to(lab))
    finally:
        subprocess.run(["umount", str(place)], check=True)


# --- pods ------------------------------------------------------------------------------


@pytest.fixture
def links(kernel: Kernel) -> Iterator[PodLinks]:
    program = bpf.open_pinned(kernel.settings.pins / "programs" / SK_LOOKUP.name)
    made = PodLinks(Pins(kernel.settings.pins), program)
    yield made
    made.close()
    bpf.close(program)


def looked_up(kernel: Kernel) -> int:
    return len(attached(kernel.lab.a.fileno(), SK_LOOKUP.hook).programs)


def test_a_pods_link_is_made_once_and_ended(kernel: Kernel, links: PodLinks) -> None:
    cookie, fd = kernel.lab.a.cookie, kernel.lab.a.fileno()
    assert links.attach(cookie, fd)
    assert not links.attach(cookie, fd)
    assert looked_up(kernel) == 1
    links.detach(cookie)
    links.detach(cookie)
    assert looked_up(kernel) == 0
    assert not list((kernel.settings.pins / "pods").iterdir())


def test_a_predecessors_link_is_taken_over(kernel: Kernel, links: PodLinks) -> None:
    kernel.enroll("a")
    assert not links.attach(kernel.lab.a.cookie, kernel.lab.a.fileno())
    links.detach(kernel.lab.a.cookie)
    assert looked_up(kernel) == 0


@pytest.mark.parametrize("what", ["unpinned", "detached", "another program"])
def test_a_pods_link_that_somebody_takes_away_is_made_again(
    kernel: Kernel, links: PodLinks, what: str
) -> None:
    cookie, fd = kernel.lab.a.cookie, kernel.lab.a.fileno()
    place = kernel.settings.pins / "pods" / str(cookie)
    links.attach(cookie, fd)
    if what == "unpinned":
        place.unlink()
        assert looked_up(kernel) == 1
    else:
        link = bpf.open_pinned(place)
        other = bpf.prog_load(bpf.Program("other", SK_LOOKUP.kind, SK_LOOKUP.hook, ALLOW))
        bpf.link_detach(link) if what == "detached" else bpf.link_update(link, other)
        for each in (link, other):
            bpf.close(each)
    assert links.attach(cookie, fd)
    assert not links.attach(cookie, fd)
    wait_until(lambda: looked_up(kernel) == 1)  # the kernel ends what nobody holds any more in its own time
    assert place.exists()


def test_programs_of_other_nodes_are_known(lab: Lab, kernel: Kernel) -> None:
    with Kernel(lab) as other:
        known = programs_beside(Pins(kernel.settings.pins))
        assert set(attached_to(lab)) <= known
        assert other.settings.pins.parent == kernel.settings.pins.parent
    assert programs_beside(Pins(Path("/none/such/node"))) == frozenset()


def test_another_program_at_a_place_that_was_seen_is_seen(lab: Lab, kernel: Kernel) -> None:
    beside = Beside(Pins(kernel.settings.pins))

    def is_right() -> bool:  # but for what others make or remove between two looks
        return beside.programs() == beside.programs() == programs_beside(Pins(kernel.settings.pins))

    with Kernel(lab) as other:
        place = other.settings.pins / "programs/connect4"
        hook = next(each for each in HOOKS if each.name == "connect4")
        wait_until(is_right)
        fd = bpf.prog_load(bpf.Program("other", hook.kind, hook.hook, ALLOW))
        bpf.set_pinned(fd, place)
        assert bpf.object_id(fd) in beside.programs()
        bpf.close(fd)
    wait_until(is_right)
