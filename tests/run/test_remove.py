"""Whether a proxy uses an installation, and pods that leave one that nobody serves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab import Kernel, Lab
from ztunnel.redirect.load import hold, is_held
from ztunnel.run.detach import Detached, Detachments
from ztunnel.run.remove import (
    clean_up,
    cookie_at,
    forget_files,
    free,
    known_pods,
    refuse_running,
    runs,
    uninstall,
)

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


HOLDER = "import sys; from pathlib import Path; from ztunnel.redirect.load import hold; "
HOLDER += "hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_a_process_that_uses_the_pins_is_seen_whatever_it_does(lab: Lab) -> None:
    with Kernel(lab) as kernel:
        pins = kernel.settings.pins
        assert not runs(pins)
        words = [sys.executable, "-c", HOLDER, str(pins)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            assert is_held(pins)
            with pytest.raises(Exception, match="serves, drains or waits for its world"):
                refuse_running([pins])
            process.kill()
            process.wait()
        refuse_running([pins])  # it is dead: nothing keeps what it held
        kernel.redirection.renew_lease(time.monotonic_ns())
        assert runs(pins)  # of a version that holds nothing
    assert not is_held(pins)


def test_two_may_use_them_at_once(lab: Lab) -> None:
    with Kernel(lab) as kernel:
        one, two = hold(kernel.settings.pins), hold(kernel.settings.pins)
        os.close(one)
        assert is_held(kernel.settings.pins)
        os.close(two)
        assert not is_held(kernel.settings.pins)


def test_one_pod_is_freed_and_the_other_stays(lab: Lab) -> None:
    with Kernel(lab) as kernel:
        pins = kernel.settings.pins
        one, other = kernel.enroll("a"), kernel.enroll("b")
        assert known_pods(pins) == {one.cookie, other.cookie}
        assert cookie_at(Path(f"/run/netns/{lab.names['a']}")) == one.cookie
        assert free(pins, {one.cookie, 99}) == 1
        assert known_pods(pins) == {other.cookie}
        assert free(pins) == 1
        assert known_pods(pins) == set()
        assert clean_up(pins) == 0


def test_who_leaves_for_good_removes_nothing_that_the_next_one_uses(lab: Lab, tmp_path: Path) -> None:
    with Kernel(lab) as kernel:
        pins = kernel.settings.pins
        kernel.enroll("a")
        Detachments(tmp_path, pins).write(Detached(all=True))
        held = hold(pins)
        assert uninstall(pins, tmp_path) is None
        assert len(known_pods(pins)) == 1
        assert Detachments(tmp_path, pins).read()
        os.close(held)
        assert uninstall(pins, tmp_path) == 1
        assert not pins.exists()
        assert not Detachments(tmp_path, pins).read()
        assert uninstall(pins, tmp_path) is None


def test_files_of_these_pins_are_removed_and_no_others(tmp_path: Path) -> None:
    names = ["lab-n1.pods", "lab-n1.detached", "lab-n1.stalls", "lab-n1.sock", "lab-n1.txt", "lab-n10.pods"]
    for name in names:
        (tmp_path / name).touch()
    forget_files("lab-n1", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab-n1.txt", "lab-n10.pods"]
    forget_files("lab-*", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lab-n1.txt"]
    forget_files("lab-n1", tmp_path / "none")
