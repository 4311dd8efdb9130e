"""`ztunnel clean` on installations of their own names; what else is pinned on the machine is not touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.kernel.lab import CACHE, PINS, Kernel, Lab, unique
from ztunnel.cli.main import main
from ztunnel.errors import Unsupported
from ztunnel.kernel.bpf import Map, open_pinned
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.way_back import WayBack
from ztunnel.redirect import load
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.plan import RedirectSettings, pin_name
from ztunnel.run.remove import clean_up, find_installations, lease_age_seconds, refuse_running

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ACCEPT = "net.ipv4.tcp_fwmark_accept"


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["clean", *map(str, words)])


def rules(netns: NetworkNamespace) -> str:
    with netns.entered():
        shown = [["ip", family, "rule"] for family in ("-4", "-6")]
        shown.append(["ip", "route", "show", "table", "100"])
        return "".join(subprocess.run(each, capture_output=True, text=True).stdout for each in shown)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory of installations like the real one, of the test's own."""
    root = Path("/sys/fs/bpf", unique())
    root.mkdir()
    yield root
    for each in root.iterdir():
        load.remove(each)
    root.rmdir()


def install(lab: Lab, pins: Path) -> Redirection:
    load.ensure_loaded(RedirectSettings(pins=pins, cache=CACHE, cgroup=lab.root))
    return Redirection.open(pins)


def test_one_node_is_taken_away_with_what_was_changed_in_its_pods(lab: Lab) -> None:
    node = f"{unique()}.example"
    pins = PINS / pin_name(node)
    with install(lab, pins) as redirection:
        redirection.enroll(lab.pod("a"))
    WayBack().ensure(lab.a)
    lab.a.write_sysctl(ACCEPT, "1")
    assert "fwmark 0x111" in rules(lab.a)
    done = call("--node", node)
    assert (done.exit_code, done.output) == (
        0,
        f"{pins}: 1 pods removed from the mesh, everything unpinned\n",
    )
    assert not pins.exists()
    assert "0x111" not in rules(lab.a)
    assert "local default" not in rules(lab.a)
    assert lab.a.read_sysctl(ACCEPT) == "0"
    again = call("--node", node)
    assert (again.exit_code, again.output) == (0, "Nothing is there to be removed.\n")


def test_all_nodes_are_found_also_what_was_only_begun(lab: Lab, root: Path) -> None:
    for name in ("n1", "n2"):
        install(lab, root / name).close()
    (root / "n2").rename(root / "+n2")
    assert find_installations(root=root) == [root / "+n2", root / "n1"]
    assert find_installations("n2", root=root) == [root / "+n2"]
    assert find_installations("n3", root=root) == []
    assert [clean_up(each) for each in find_installations(root=root)] == [0, 0]
    assert find_installations(root=root) == []
    assert find_installations(root=root / "none") == []


@pytest.mark.parametrize("missing", ["maps", "programs", "version"])
def test_a_half_finished_one_is_removed_with_its_pods(lab: Lab, root: Path, missing: str) -> None:
    with install(lab, root / "n1") as redirection:
        redirection.enroll(lab.pod("a"))
    WayBack().ensure(lab.a)
    place = root / "n1" / missing
    place.unlink() if place.is_symlink() else shutil.rmtree(place)
    assert clean_up(root / "n1") == 1
    assert list(root.iterdir()) == []
    assert "0x111" not in rules(lab.a)


def test_a_pod_that_has_gone_is_no_hindrance(lab: Lab, root: Path) -> None:
    with install(lab, root / "n1") as redirection:
        redirection.enroll(lab.pod("a"))
        with Map(open_pinned(root / "n1" / "maps" / "enrolled")) as enrolled:
            [key] = enrolled
            enrolled.put(bytes(7) + b"\x7f", enrolled.get(key) or b"")
    assert clean_up(root / "n1") == 2


def test_what_a_proxy_still_holds_is_refused_unless_forced(lab: Lab) -> None:
    with Kernel(lab) as kernel:
        pins = kernel.settings.pins
        assert lease_age_seconds(pins) > 2
        kernel.redirection.renew_lease(time.monotonic_ns())
        assert lease_age_seconds(pins) < 2
        done = call("--pins", pins)
        assert (done.exit_code, done.output) == (
            1,
            f"Error: the proxy of {pins} runs: it serves, drains or waits for its world. "
            "Stop it first, or give --force\n",
        )
        assert pins.exists()
        kernel.redirection.end_lease()
        refuse_running([pins])
        kernel.redirection.renew_lease(time.monotonic_ns())
        assert call("--pins", pins, "--force").exit_code == 0
        assert not pins.exists()


def test_a_directory_that_is_no_node_proxys_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = call("--pins", tmp_path)
    assert done.exit_code == 1
    assert "is on no bpffs" in done.output
    assert (tmp_path / "precious").exists()
    (root / "other").mkdir()
    (root / "other" / "thing").mkdir()
    done = call("--pins", root / "other")
    assert done.exit_code == 1
    assert "is not a node proxy's, because 'thing' is in it" in done.output
    with pytest.raises(Unsupported, match="is not a node proxy's"):
        find_installations(root=root)
    assert (root / "other" / "thing").is_dir()


def test_one_place_is_named_once() -> None:
    done = call("--node", "a", "--pins", "/sys/fs/bpf/b")
    assert done.exit_code == 2
    assert "give one of them" in done.output


def test_only_root_may() -> None:
    script = "import os; os.setuid(65534); from ztunnel.cli.main import main; main(['clean'])"
    imports = "import trio, ztunnel.cli.clean; "
    done = subprocess.run(
        [sys.executable, "-c", imports + script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: redirection needs root")
    assert len(done.stderr.splitlines()) == 1
