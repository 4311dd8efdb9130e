"""An archive of parts: what is missing is said, what is secret is gone, what is long is cut."""

from __future__ import annotations

import json
import os
import tarfile
from functools import partial
from pathlib import Path

import pytest

from tests.analyze.kubectl import Fake
from tests.analyze.test_forward import listing, pod
from tests.cli.test_explain import page
from ztunnel.analyze import gather as gathering
from ztunnel.analyze.fetch import NoAnswer
from ztunnel.analyze.forward import NoCluster
from ztunnel.analyze.gather import cluster_parts, gather, laboratory_parts, machine_parts
from ztunnel.config import Settings
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.names import Names


def fail(error: Exception) -> str:
    raise error


def silent(_: str) -> None:
    """Tells nothing."""


def test_what_cannot_be_had_costs_only_itself_and_is_named() -> None:
    told: list[str] = []
    parts = {
        "a": partial(fail, NoAnswer("n1: refused")),
        "b": lambda: "good",
        "c": partial(fail, OSError(2, "No such file")),
    }
    archive = gather(parts, told.append)
    assert archive.texts == {"b": "good"}
    assert archive.errors == ["a: n1: refused", "c: [Errno 2] No such file"]
    assert told == ["a", "b", "c"]


def test_secrets_are_gone_and_the_end_of_what_is_long_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "_LARGEST_BYTES", 10)
    archive = gather({"a": lambda: "old old old password: x\nthe newest"}, silent)
    assert archive.texts["a"] == "the newest"
    monkeypatch.undo()
    assert "hunter2" not in gather({"a": lambda: "password: hunter2"}, silent).texts["a"]


def test_it_is_written_below_one_folder_with_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    gather({"a/b.txt": lambda: "text\ud800", "c": partial(fail, OSError("no"))}, silent).write(path, "top", 7)
    with tarfile.open(path) as archive:
        found = {each.name: each for each in archive.getmembers()}
        assert set(found) == {"top/a/b.txt", "top/errors.txt"}
        assert (found["top/a/b.txt"].mode, found["top/a/b.txt"].mtime) == (0o600, 7)
        errors = archive.extractfile("top/errors.txt")
        assert errors is not None
        assert errors.read() == b"c: no\n"


@pytest.mark.root
@pytest.mark.timeout(30)
def test_this_machine_is_described() -> None:
    archive = gather(machine_parts(Settings(node="n")), silent)
    assert archive.errors == []
    assert "sk_lookup programs" in archive.texts["machine/check.txt"]


def test_a_laboratory_gives_each_node_and_its_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ztunnel.demo.names.RUN", tmp_path / "run")
    monkeypatch.setattr("ztunnel.demo.names.NETNS", tmp_path / "netns")
    names = Names(f"g{os.getpid()}", Path("/"))
    with pytest.raises(LaboratoryFailed, match="there is no laboratory"):
        laboratory_parts(names)
    names.manifests.mkdir(parents=True)
    (names.manifests / "pod.yaml").write_text("kind: Pod")
    (names.manifests / "secret_shop_s.yaml").write_text("kind: Secret")
    names.netns(names.node("n1")).parent.mkdir()
    names.netns(names.node("n1")).touch()
    parts = laboratory_parts(names)
    assert sorted(parts) == [
        "nodes/n1/config_dump.json", "nodes/n1/log.txt", "nodes/n1/metrics.txt", "nodes/n1/readiness.txt",
        "objects/pod.yaml",
    ]  # fmt: skip
    archive = gather(parts, silent)
    assert archive.texts == {"objects/pod.yaml": "kind: Pod"}
    assert len(archive.errors) == 4


def test_a_cluster_gives_objects_logs_and_pages(kubectl: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    with page(lambda path: (200, f"page {path}")) as address:
        port = address.rpartition(":")[2]
        script = f"""case "$*" in
            *port-forward*) echo 'Forwarding from 127.0.0.1:{port} -> 1'; exec sleep 60;;
            *"get pods -l app.kubernetes.io/component=control"*) {listing(pod("zt-c", "n1"))}
            ;;
            *"get pods -l"*) {listing(pod("zt-a", "n1"))}
            ;;
            "get pods -A -l gateway.istio.io/managed=ztunnel.io-waypoint-controller"*) cat <<'END'
{json.dumps({"items": [{"metadata": {"namespace": "shop", "name": "wp-1"}}]})}
END
            ;;
            *previous*) echo 'previous terminated container not found' >&2; exit 1;;
            *) echo "said $*";;
        esac"""
        kubectl(script)
        archive = gather(cluster_parts("zs"), silent)
    assert archive.texts["nodes/n1/config_dump.json"] == "page /config_dump"
    assert archive.texts["objects/pods.yaml"] == "said get pods -A -o yaml\n"
    for name, component in (("control/log.txt", "control"), ("nodes/holders.txt", "holder")):
        words = f"said -n zs logs -l app.kubernetes.io/component={component} --all-containers"
        assert archive.texts[name].startswith(words)
    assert archive.texts["control/zt-c/syncz.json"] == "page /debug/syncz"
    assert archive.texts["waypoints/shop/wp-1/config_dump.json"] == "page /config_dump"
    assert archive.texts["waypoints/shop/wp-1/log.txt"].startswith("said -n shop logs wp-1 --all-containers")
    assert {"objects/ratelimitpolicies.ztunnel.io.yaml", "control/zt-c/metrics.txt"} <= archive.texts.keys()
    assert archive.errors == [
        "nodes/n1/log-before.txt: kubectl -n zs logs zt-a --all-containers --tail=20000 --previous: "
        "previous terminated container not found"
    ]
    assert not any("secret" in name for name in archive.texts)


def test_without_a_cluster_that_is_the_error(kubectl: Fake) -> None:
    kubectl("echo 'no route' >&2; exit 1")
    with pytest.raises(NoCluster, match="no route"):
        cluster_parts("zs")
