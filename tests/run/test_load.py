from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.lab import CACHE, Lab, endpoint, unique
from tests.kernel.rewriting import rewrite
from tests.run.parts import SETTINGS
from ztunnel.config import Settings
from ztunnel.errors import Unsupported
from ztunnel.kernel import cgroup
from ztunnel.redirect import load as redirect_load
from ztunnel.redirect.attach import Redirection
from ztunnel.run.load import load_programs, prepare, redirection_of, refuse_rewritten, service_of

PREPARE = """
import sys
from pathlib import Path
from ztunnel.config import Settings
from ztunnel.run import load
getattr(load, sys.argv[1])(Settings(node="n1", pins=Path(sys.argv[2])))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "bpf").symlink_to(CACHE)
    made = replace(SETTINGS, pins=Path("/sys/fs/bpf/ztunnel", unique()), cache_dir=tmp_path)
    with Lab():  # in a cgroup of its own
        yield made
    assert made.pins is not None
    redirect_load.remove(made.pins)


def test_pins_are_of_the_node_unless_a_place_is_given():
    assert redirection_of(replace(SETTINGS, node="ip-1.eu")).pins == Path("/sys/fs/bpf/ztunnel/ip-1_-eu")
    given = redirection_of(replace(SETTINGS, pins=Path("/sys/fs/bpf/x"), cache_dir=Path("/c")))
    assert (given.pins, given.cache) == (Path("/sys/fs/bpf/x"), Path("/c/bpf"))


@pytest.mark.root
@pytest.mark.timeout(60)
def test_what_was_loaded_before_is_opened_by_who_does_not_load(settings: Settings, tmp_path: Path):
    opens = replace(settings, load_programs=False)
    with pytest.raises(Unsupported, match="are not there, and this proxy does not load them"):
        prepare(replace(opens, cache_dir=tmp_path / "empty"))
    assert load_programs(settings)
    assert not load_programs(settings)
    wanted, root = prepare(opens)
    assert root == cgroup.find_root()
    with Redirection.open(wanted.pins) as redirection:
        assert redirection.enrolled() == {}


@pytest.mark.root
@pytest.mark.timeout(60)
def test_who_loads_by_itself_needs_nobody(settings: Settings):
    prepare(settings)
    assert settings.pins is not None
    assert settings.pins.is_dir()


@pytest.mark.root
@pytest.mark.parametrize("function", ["load_programs", "prepare"])
def test_a_container_that_sees_its_own_cgroup_is_told_what_to_mount(function: str):
    root = cgroup.find_root()
    own = cgroup.create(root / unique())
    pins = Path("/sys/fs/bpf/ztunnel", own.name)
    script = (
        f'echo 0 > "{own}/cgroup.procs"; exec unshare --cgroup --mount sh -c \'umount "{root}"; '
        f'mount -t cgroup2 none "{root}"; exec "$@"\' sh "$@"'
    )
    words = ["sh", "-c", script, "sh", sys.executable, "-c", PREPARE, function, str(pins)]
    try:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(words, capture_output=True, text=True, env=env)
    finally:
        cgroup.remove(own)
    assert f"{root} shows this container's own cgroup" in done.stderr
    assert not pins.exists()


@pytest.mark.parametrize(
    ("host", "port", "found"),
    [
        ("10.96.0.1", "443", endpoint("10.96.0.1", 443)),
        ("fd00::1", "6443", endpoint("fd00::1", 6443)),
        ("", "", None),
        ("kubernetes", "443", None),
        ("10.96.0.1", "https", None),
    ],
)
def test_a_pod_knows_one_service_of_its_cluster(host: str, port: str, found: object) -> None:
    assert service_of({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}) == found
    assert service_of({}) is None


@pytest.mark.root
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("vip", "backend"), [("192.0.2.1", "10.77.0.99"), ("2001:db8::1", "fd77::99")])
def test_where_a_load_balancer_changes_pods_calls_nothing_is_loaded(
    tmp_path: Path, vip: str, backend: str
) -> None:
    settings = replace(SETTINGS, pins=Path("/sys/fs/bpf/ztunnel", unique()), cache_dir=tmp_path)
    service = endpoint(vip, 443)
    with Lab() as lab, ExitStack() as stack:
        fd = os.open(lab.root, os.O_RDONLY)
        stack.callback(os.close, fd)
        with lab.a.entered():
            refuse_rewritten(settings, cgroup.find_root(), service)  # alone, nothing is said
            number = rewrite(stack, fd, service, endpoint(backend, 6443))
            with pytest.raises(Unsupported) as refused:
                load_programs(settings, service)
    text = str(refused.value)
    assert f"a call of {service} goes to {endpoint(backend, 6443)}, by " in text
    assert f"{number} (cil_sock_connec" in text  # there may be others on the machine
    assert "socketLB.hostNamespaceOnly=true" in text
    assert settings.pins is not None
    assert not settings.pins.exists()
