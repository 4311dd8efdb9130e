"""Manifests that are wrong while the mesh runs: said with file, line and field; each costs only itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, wait_until
from ztunnel.demo.command import program

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/plain", "node-1")
    + lab.policy("shop/only-caller", "ALLOW", "[{from: [{source: {namespaces: [shop]}}]}]")
)
HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: bad, namespace: shop}\n"

# The text, the line that has to be named, and a part of what has to be said.
BAD = {
    "syntax.yml": (HEAD + "spec:\n  rules: [\n", 6, "not YAML"),
    "tab.yml": (HEAD + "spec:\n\trules: []\n", 5, "not YAML"),
    "field.yml": (HEAD + "spec:\n  action: DENY\n  rulez: [{}]\n", 6, "spec.rulez"),
    "deep.yml": (HEAD + "spec:\n  rules:\n  - from:\n    - source: {principal: [x]}\n", 7, "principal"),
    "type.yml": (HEAD + "spec:\n  rules: everything\n", 5, "spec.rules"),
    "list.yml": (HEAD + "spec:\n  rules:\n  - to:\n    - operation: {ports: '80'}\n", 7, "ports"),
    "cidr.yml": (
        HEAD + "spec:\n  rules:\n  - from:\n    - source:\n        ipBlocks: [10.0.0.0/33]\n",
        8,
        "ipBlocks[0]: neither an address nor a CIDR",
    ),
    "port.yml": (HEAD + "spec:\n  rules:\n  - to:\n    - operation: {ports: ['80000']}\n", 7, "ports[0]"),
    "action.yml": (HEAD + "spec:\n  action: FORBID\n", 5, "spec.action"),
    "selector.yml": (HEAD + "spec:\n  selector:\n    matchLabels: {app: [a, b]}\n", 6, "matchLabels"),
    "empty-key.yml": (HEAD + "spec:\n  selector:\n    matchLabels: {'': a}\n", 6, "matchLabels"),
    "mode.yml": (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\n"
        "spec:\n  mtls: {mode: VERY_STRICT}\n",
        5,
        "spec.mtls.mode: must be one of",
    ),
    "service.yml": (
        "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {ports: [{port: x}]}\n",
        4,
        "port",
    ),
    "pod.yml": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\n"
        "status: {podIPs: [{ip: 10.0.0.999}]}\n",
        4,
        "10.0.0.999",
    ),
    "nameless.yml": ("apiVersion: v1\nkind: Service\nmetadata: {namespace: shop}\n", 3, "name"),
    "number.yml": ("- 1\n- 2\n", 1, "mapping"),
}


@pytest.fixture
def folder(mesh: Mesh) -> Iterator[Path]:
    """The folder that the proxies watch; what a test writes there is removed afterwards.

    It belongs to the laboratory, which reads its own `*.yaml` in it, and nothing else.
    """
    folder = mesh.laboratory.names.manifests
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()
    for node in ("node-1", "node-2"):
        wait_until(lambda node=node: faults(mesh, node) == 0, "all is well")
    mesh.settle()


def faults(mesh: Mesh, node: str) -> float:
    return mesh.figures(node).total("ztunnel_manifest_faults")


def readiness(mesh: Mesh, node: str) -> tuple[int, str]:
    names = mesh.laboratory.names
    return lab.fetch(names.netns(names.node(node)), 15021, "/healthz/ready", {})


def holds(mesh: Mesh) -> bool:
    """Whether what is in force is the last good state: shop may, plain may not."""
    target = mesh.address("shop/called")
    return mesh.call("shop/caller", target, 8080).answers() and mesh.call("out/plain", target, 8080).refused


def test_all_faults_are_said_at_once_each_with_its_place(mesh: Mesh, folder: Path) -> None:
    for name, (text, _, _) in BAD.items():
        (folder / name).write_text(text)
    for node in ("node-1", "node-2"):
        wait_until(lambda node=node: faults(mesh, node) >= len(BAD), f"{node} counts them")
        status, body = readiness(mesh, node)
        assert status == 200, "the mesh goes on"
        for name, (_, line, said) in BAD.items():
            shown = "\n".join(one for one in body.splitlines() if name in one)
            assert f"{name}:{line}:" in shown, body
            assert said in shown
    assert holds(mesh)


def test_a_fault_is_logged_once_and_gone_when_it_is_fixed(mesh: Mesh, folder: Path) -> None:
    text, line, said = BAD["cidr.yml"]
    (folder / "cidr.yml").write_text(text)
    wait_until(lambda: faults(mesh, "node-1") == 1, "the fault")
    place = f"cidr.yml:{line}:"
    logged = wait_until(lambda: [one for one in mesh.lines("node-1") if place in one["text"]], "it is logged")
    assert [one["level"] for one in logged] == ["error"]
    assert said in logged[0]["text"]
    (folder / "cidr.yml").unlink()
    wait_until(lambda: faults(mesh, "node-1") == 0, "it is gone")
    assert "cidr" not in readiness(mesh, "node-1")[1]

    def told() -> list[lab.Line]:
        return [one for one in mesh.lines("node-1") if place in one["text"]]

    wait_until(lambda: len(told()) == 2, "that is logged too")
    assert [(one["level"], "is gone" in one["text"]) for one in told()] == [("error", False), ("info", True)]


def policy_faults(mesh: Mesh, node: str, policy: str) -> float:
    return mesh.figures(node).total("ztunnel_policy_faults", policy=policy)


def test_a_good_deny_beside_a_faulty_one_counts_at_once(mesh: Mesh, folder: Path) -> None:
    target = mesh.address("shop/called")
    (folder / "bad.yml").write_text(BAD["mode.yml"][0] + "---\n" + BAD["action.yml"][0])
    wait_until(lambda: faults(mesh, "node-2") == 2, "the faults")
    assert policy_faults(mesh, "node-2", "shop/p") == 2
    assert policy_faults(mesh, "node-2", "shop/bad") == 2
    assert mesh.call("shop/caller", target, 8080).answers()
    (folder / "good.yml").write_text(lab.policy("shop/urgent", "DENY", "[{}]"))
    wait_until(lambda: mesh.call("shop/caller", target, 8080).refused, "the DENY counts")
    wait_until(
        lambda: [
            one
            for one in mesh.lines("node-2")
            if one["message"] == "manifests taken over" and "AuthorizationPolicy shop/urgent" in one["text"]
        ],
        "it is told",
    )
    assert readiness(mesh, "node-2")[0] == 200
    (folder / "good.yml").unlink()
    wait_until(lambda: mesh.call("shop/caller", target, 8080).answers(), "it is gone")
    assert faults(mesh, "node-2") == 2


def test_a_deny_that_is_broken_in_the_editing_stays_in_force_also_over_a_restart(
    mesh: Mesh, folder: Path
) -> None:
    target = mesh.address("shop/called")
    (folder / "deny.yml").write_text(lab.policy("shop/deny", "DENY", "[{}]"))
    wait_until(lambda: mesh.call("shop/caller", target, 8080).refused, "the DENY counts")
    (folder / "deny.yml").write_text(BAD["syntax.yml"][0])
    wait_until(lambda: faults(mesh, "node-2") == 1, "the fault")
    lab.steadily(lambda: mesh.call("shop/caller", target, 8080).refused, "it still counts", 1.0)
    mesh.laboratory.kill_node("node-2")
    mesh.laboratory.start_node("node-2")
    lab.steadily(lambda: mesh.call("shop/caller", target, 8080).refused, "after a restart too", 1.0)
    (folder / "deny.yml").unlink()
    wait_until(lambda: mesh.call("shop/caller", target, 8080).answers(), "it is gone")


def test_what_is_no_file_is_a_fault_and_stops_nothing(mesh: Mesh, folder: Path) -> None:
    os.mkfifo(folder / "fifo.yml")
    (folder / "nowhere.yml").symlink_to("gone")
    (folder / "loop").symlink_to(".")
    wait_until(lambda: faults(mesh, "node-2") == 3, "three faults")
    (folder / "good.yml").write_text(lab.policy("shop/urgent", "DENY", "[{}]"))
    wait_until(lambda: mesh.call("shop/caller", mesh.address("shop/called"), 8080).refused, "the DENY counts")
    body = readiness(mesh, "node-2")[1]
    assert all(name in body for name in ("fifo.yml: is a FIFO", "nowhere.yml: a link", "loop: a link"))


def test_what_is_not_text_is_a_fault_and_what_is_no_manifest_is_none(mesh: Mesh, folder: Path) -> None:
    (folder / "binary.yml").write_bytes(b"\xff\xfe\x00kind: Pod")
    wait_until(lambda: faults(mesh, "node-1") == 1, "the fault")
    assert "binary.yml" in readiness(mesh, "node-1")[1]
    (folder / "binary.yml").write_text("\n---\n---\n# nothing\n")
    (folder / "notes.txt").write_text("a: b: c")
    (folder / ".hidden.yml").write_text("a: b: c")
    wait_until(lambda: faults(mesh, "node-1") == 0, "all is well")
    assert holds(mesh)


def test_an_unknown_kind_is_warned_about_once(mesh: Mesh, folder: Path) -> None:
    strange = (
        "apiVersion: example.org/v1\nkind: Strange\nmetadata: {name: s, namespace: shop}\nspec: {a: 1}\n"
    )
    (folder / "strange.yml").write_text(strange)
    mesh.settle()
    warned = wait_until(
        lambda: [one for one in mesh.lines("node-1") if "Strange" in one["text"]], "a warning"
    )
    assert [one["level"] for one in warned] == ["warn"]
    (folder / "strange.yml").write_text(strange + "---\n" + strange.replace("name: s,", "name: t,"))
    mesh.settle()
    assert len([one for one in mesh.lines("node-1") if "Strange" in one["text"]]) == 1
    assert faults(mesh, "node-1") == 0
    assert holds(mesh)


def test_what_is_for_other_proxies_is_said_to_have_no_effect(mesh: Mesh, folder: Path) -> None:
    """By the control plane once, by `analyze` with what would do instead."""
    filters = folder / "filters.yml"
    filters.write_text(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f, namespace: shop}\n"
        "spec: {configPatches: []}\n---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n"
        "metadata: {name: w, namespace: shop}\nspec: {url: 'oci://x'}\n"
    )
    for node in ("node-1", "node-2"):
        for kind in ("EnvoyFilter", "WasmPlugin"):
            wait_until(
                lambda node=node, kind=kind: [
                    one for one in mesh.lines(node) if kind in one["text"] and one["level"] == "warn"
                ],
                f"{node} says so of {kind}",
            )
        assert faults(mesh, node) == 0
    assert holds(mesh)
    run = [*program(os.environ), "analyze", "--failure-threshold", "info", str(filters)]
    found = subprocess.run(run, check=False, capture_output=True, text=True)
    assert found.returncode == 1, found.stderr
    assert "EnvoyFilter shop/f" in found.stdout
    assert "no proxy here is an Envoy to patch" in found.stdout
    assert "WasmPlugin shop/w" in found.stdout
    assert "no proxy here runs Wasm" in found.stdout


def test_a_proxy_that_restarts_upon_a_fault_goes_on_with_what_is_good(mesh: Mesh, folder: Path) -> None:
    (folder / "bad.yml").write_text(BAD["syntax.yml"][0])
    wait_until(lambda: faults(mesh, "node-1") == 1, "the fault")
    mesh.laboratory.kill_node("node-1")
    mesh.laboratory.start_node("node-1")
    assert faults(mesh, "node-1") == 1
    assert holds(mesh)


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
