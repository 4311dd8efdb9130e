"""`ztunnel detach` on a node whose proxy is dead, and `ztunnel attach`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.kernel.lab import Kernel, Lab
from ztunnel.cli.main import main
from ztunnel.kernel.way_back import WayBack
from ztunnel.run.detach import Detached, Detachments

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


REFUSED = ("10.77.0.3", 80)


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def goes_out(kernel: Kernel) -> bool:
    """Whether a call of pod a leaves it as it is: it finds nobody, and is refused by b itself."""
    return kernel.redirection.enrolled().get(kernel.lab.a.cookie) is None


def test_a_pod_is_freed_by_its_name_and_stays_so(lab: Lab, tmp_path: Path) -> None:
    with Kernel(lab) as kernel:
        pins = kernel.settings.pins
        one, other = kernel.enroll("a"), kernel.enroll("b")
        WayBack().ensure(lab.a)
        detachments = Detachments(tmp_path, pins)
        detachments.remember({one.cookie: "shop/a", other.cookie: "shop/b"})
        done = call("detach", "--pins", pins, "--run-dir", tmp_path, "--pod", "shop/a")
        assert (done.exit_code, done.output) == (
            0,
            f"shop/a of {pins.name} detached, 1 freed now; `ztunnel attach` undoes it\n",
        )
        assert goes_out(kernel)
        assert kernel.redirection.enrolled().keys() == {other.cookie}
        assert detachments.read() == Detached(pods=frozenset({"shop/a"}))
        done = call("attach", "--pins", pins, "--run-dir", tmp_path, "--pod", "shop/a")
        assert done.exit_code == 0
        assert done.output.endswith("detached is now: none\n")
        assert not detachments.read()


def test_all_pods_are_freed_and_stay_so(lab: Lab, tmp_path: Path) -> None:
    with Kernel(lab) as kernel:
        pins = kernel.settings.pins
        kernel.enroll("a")
        kernel.enroll("b")
        done = call("detach", "--pins", pins, "--run-dir", tmp_path)
        assert (done.exit_code, done.output.partition(";")[0]) == (
            0,
            f"all pods of {pins.name} detached, 2 freed now",
        )
        assert kernel.redirection.enrolled() == {}
        assert "shop/any" in Detachments(tmp_path, pins).read()
        assert call("detach", "--pins", pins, "--run-dir", tmp_path).exit_code == 0
        one = call("attach", "--pins", pins, "--run-dir", tmp_path, "--pod", "shop/a")
        assert "attach them without --pod first" in one.output
        assert call("attach", "--pins", pins, "--run-dir", tmp_path).exit_code == 0
        assert not Detachments(tmp_path, pins).read()


def test_a_pod_that_the_proxy_did_not_write_down_is_named_by_its_namespace(lab: Lab, tmp_path: Path) -> None:
    with Kernel(lab) as kernel:
        pins = kernel.settings.pins
        kernel.enroll("a")
        words = ["detach", "--pins", pins, "--run-dir", tmp_path, "--pod", "shop/a"]
        done = call(*words)
        assert done.exit_code == 1
        assert "shop/a is none of the pods that the proxy had last (none): give its namespace" in done.output
        assert "shop/a" in Detachments(tmp_path, pins).read()  # for a proxy that runs, or comes
        done = call(*words, "--netns", "/dev/null")
        assert "/dev/null is no network namespace" in done.output
        assert call(*words, "--netns", f"/run/netns/{lab.names['a']}").exit_code == 0
        assert goes_out(kernel)


def test_a_node_that_has_nothing_is_detached_for_later(tmp_path: Path) -> None:
    done = call("detach", "--node", "none-such.example", "--run-dir", tmp_path)
    assert (done.exit_code, "0 freed now" in done.output) == (0, True)
    assert "Warning: nothing is pinned at /sys/fs/bpf/ztunnel/none-such_-example yet" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which node is this? Give --node NAME, or --pins DIR"),
        (["--node", "a", "--pins", "/b"], "which node is this?"),
        (["--node", "a", "--pod", "x"], "'x' is no pod: give NAMESPACE/NAME"),
        (["--node", "a", "--netns", "/proc/1/ns/net"], "--netns is that of one pod"),
    ],
)
def test_what_has_to_be_said_is_asked_for(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = call("detach", *words, "--run-dir", tmp_path)
    assert (done.exit_code, sentence in done.output) == (2, True)
    assert list(tmp_path.iterdir()) == []
