"""Which node proxy is asked, and what is said where none answers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.analyze.kubectl import Fake
from tests.analyze.test_forward import listing, pod
from tests.cli.test_explain import page
from ztunnel.analyze import ask as asking
from ztunnel.analyze.ask import Place, ask, is_of_laboratory, nodes_of
from ztunnel.analyze.fetch import NoAnswer
from ztunnel.demo.names import NETNS, Names

pytestmark = pytest.mark.root


def test_an_address_is_asked_before_all_else() -> None:
    with page(lambda path: (200, path)) as address:
        assert ask(Place(admin=address, node="n", pod="p"), "/x") == "/x"


def test_a_node_of_a_laboratory_is_told_by_its_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"a{os.getpid()}"
    place = Place(node="n1", laboratory=name)
    assert not is_of_laboratory(place)
    file = NETNS / Names(name, Path("/")).node("n1")
    NETNS.mkdir(exist_ok=True)
    file.touch()
    try:
        assert is_of_laboratory(place)
        with pytest.raises(NoAnswer, match=r"http://localhost:15000/x in "):
            ask(place, "/x")
        monkeypatch.setattr(asking, "get", lambda netns, port, path: (200, f"{netns.name} {port} {path}"))
        assert ask(place, "/x") == f"{file.name} 15000 /x"
        monkeypatch.setattr(asking, "get", lambda *_: (404, "no such call\n"))
        with pytest.raises(NoAnswer, match=r"^n1: no such call$"):
            ask(place, "/x")
        assert [each.node for each in nodes_of(Place(laboratory=name))] == ["n1"]
        monkeypatch.setenv("PATH", "/nowhere")
        said = rf"^no node 'n9' in laboratory '{name}' \(there are: n1\); kubectl is not in PATH"
        with pytest.raises(NoAnswer, match=said):
            ask(Place(node="n9", laboratory=name), "/x")
    finally:
        file.unlink()


def test_every_node_proxy_of_a_cluster(kubectl: Fake) -> None:
    kubectl(listing(pod("b", "n2"), pod("a", "n1")))
    found = nodes_of(Place(laboratory="nosuchlab", namespace="x"))
    assert [(each.node, each.pod, each.namespace) for each in found] == [("n1", "a", "x"), ("n2", "b", "x")]
    kubectl("exit 1")
    with pytest.raises(NoAnswer, match="get pods"):
        nodes_of(Place(laboratory="nosuchlab"))


def test_every_other_node_is_one_of_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with page(lambda path: (200, path)) as address:
        script = tmp_path / "kubectl"
        port = address.rpartition(":")[2]
        script.write_text(f"#!/bin/sh\necho 'Forwarding from 127.0.0.1:{port} -> 15000'; exec sleep 60\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert ask(Place(pod="ztunnel-abc"), "/x") == "/x"
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(NoAnswer, match="kubectl is not in PATH"):
        ask(Place(node="kn1", laboratory="nosuchlab"), "/x")
