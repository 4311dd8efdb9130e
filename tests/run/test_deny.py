"""On a node that boots no pod calls anybody before the proxy knows it; the node itself does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab import Kernel, Lab
from ztunnel.errors import Unsupported
from ztunnel.kernel import cgroup
from ztunnel.redirect.classify import PodsBranch
from ztunnel.redirect.exempt import CgroupBranch
from ztunnel.redirect.layout import StartRule
from ztunnel.run.deny import deny_starting

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SERVERS = ["10.77.0.3", "fd77::3"]
PLACES = ["pod1/c1", "burstable/pod2/c1", "kubepods-besteffort.slice/pod3.slice/cri-1.scope"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def kubepods(lab: Lab) -> Iterator[Path]:
    """Not there yet."""
    place = lab.root / "kubepods.slice"
    yield place
    cgroup.join(lab.branches["app"])
    for each in sorted(place.rglob("*"), reverse=True):
        if each.is_dir():
            each.rmdir()
    place.rmdir()


@pytest.mark.parametrize("below", PLACES)
@pytest.mark.parametrize("server", SERVERS)
def test_pods_of_every_class_are_refused_until_they_are_known(
    lab: Lab, kubepods: Path, below: str, server: str
) -> None:
    root = cgroup.find_root()
    with Kernel(lab) as kernel:
        app = kernel.listen(lab.b, 8080)
        assert app
        with lab.node.entered():
            assert deny_starting(kernel.settings.pins, root, str(kubepods.relative_to(root))) == kubepods
        pod = kubepods / below
        pod.mkdir(parents=True)
        cgroup.join(pod)
        with pytest.raises(ConnectionRefusedError):
            kernel.connect(lab.a, server, 8080)
        assert kernel.count("connect_starting") == 1
        kernel.connect(lab.node, server, 8080)  # a pod with its node's network
        cgroup.join(lab.branches["kubelet"])
        kernel.connect(lab.a, server, 8080)  # no pod
        # A proxy has come, which knows the classes and this pod.
        classes = [cgroup.cgroup_id(each) for each in (pod, *pod.parents) if each.parent == kubepods]
        branch = CgroupBranch(cgroup.cgroup_id(kubepods), len(kubepods.relative_to(root).parts))
        is_guaranteed = below.startswith("pod")
        kernel.redirection.starts.rule(
            StartRule.ALL_PODS, PodsBranch(branch, 0 if is_guaranteed else classes[0])
        )
        known = kubepods.joinpath(*Path(below).parts[: 1 if is_guaranteed else 2])
        kernel.redirection.starts.let_pass(cgroup.cgroup_id(known))
        cgroup.join(pod)
        kernel.connect(lab.a, server, 8080)


def test_where_nothing_is_loaded_that_is_said(lab: Lab, kubepods: Path) -> None:
    root = cgroup.find_root()
    with pytest.raises(Unsupported, match="no redirection is loaded"):
        deny_starting(lab.settings().pins, root, str(kubepods.relative_to(root)))


def test_a_cgroup_that_cannot_be_made_is_named(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unsupported, match=r"pods cannot be made to wait: .*file"):
        deny_starting(lab.settings().pins, tmp_path, "file/kubepods")


def test_a_proxy_that_serves_is_not_disturbed(lab: Lab, kubepods: Path) -> None:
    root = cgroup.find_root()
    with Kernel(lab) as kernel:
        kernel.redirection.renew_lease(time.monotonic_ns())
        with pytest.raises(Unsupported, match="a proxy serves this node"):
            deny_starting(kernel.settings.pins, root, str(kubepods.relative_to(root)))
        assert not kernel.redirection.starts.refuses_unknown()
    kubepods.mkdir()
