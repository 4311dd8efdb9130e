import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ztunnel
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ROOT = Path(ztunnel.__file__).parents[1]
COUNTER = itertools.count()
Demo = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def named() -> Iterator[Demo]:
    """`ztunnel demo VERB --name <own> ...`, removed at the end."""
    name = f"c{os.getpid()}x{next(COUNTER)}"

    def run(verb: str, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ztunnel", "demo", verb, "--name", name, *words]
        return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)

    yield run
    Laboratory(name).down()


@pytest.fixture
def demo() -> Iterator[Demo]:
    """Nothing stands yet."""
    with named() as demo:
        yield demo


@pytest.fixture(scope="module")
def plain() -> Iterator[Demo]:
    """The bundled application without a mesh; who uses it leaves it as it was."""
    with named() as demo:
        assert demo("up", "--plain").returncode == 0
        yield demo


def test_a_laboratory_from_up_to_down(demo: Demo) -> None:
    done = demo("up", "--plain")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 nodes and 8 pods are up" in done.stdout
    shown = demo("status").stdout
    assert "node-1  10.10.0.11 fd00:10::11  not running" in shown
    assert any(
        line.split()[-2:] == ["wanted", "running"] for line in shown.splitlines() if "frontend-1" in line
    )
    assert any(line.split()[-2:] == ["no", "running"] for line in shown.splitlines() if "client" in line)
    called = demo("exec", "-n", "shop", "load", "--", "curl", "-s", "http://frontend/")
    assert called.stdout.count('"pod"') == 3
    assert demo("logs", "frontend-1").stdout == "shop/frontend-1 listens on port 8080\n"
    assert demo("down").stdout.endswith("is removed.\n")
    assert demo("down").stdout.startswith("There is nothing left")


def test_exec_passes_streams_options_and_the_exit_status(plain: Demo) -> None:
    done = plain("exec", "load", "--", "sh", "-c", "cat; echo err >&2; exit 9", text="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (9, "in\n", "err\n")
    assert plain("exec", "load", "hostname", "-s").stdout == "load\n"


def test_objects_are_applied_labelled_and_deleted(demo: Demo, tmp_path: Path) -> None:
    demo("up", "--plain")
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: outside}\n"
    assert demo("apply", "-f", "-", text=text).stdout == "Pod outside/new added\n"
    assert demo("label", "ns", "outside", "istio.io/dataplane-mode=ambient").returncode == 0
    assert any(line.split()[-2] == "wanted" for line in demo("status").stdout.splitlines() if "new" in line)
    demo("label", "namespace", "outside", "istio.io/dataplane-mode-")
    assert any(line.split()[-2] == "no" for line in demo("status").stdout.splitlines() if "new" in line)
    (tmp_path / "x.yaml").write_text(text)
    assert demo("apply", "-f", str(tmp_path), "--delete").stdout == "Pod outside/new removed\n"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["exec", "lod", "--", "true"], 1, "Error: no pod 'lod' in the laboratory; did you mean load?"),
        (["logs", "node-3"], 1, "Error: no node or pod 'node-3' in the laboratory; did you mean node-"),
        (["logs", "node-1"], 1, "Error: node-1 has written nothing yet"),
        (["label", "ns", "shop", "x"], 2, "Error: neither KEY=VALUE nor KEY-: 'x'"),
        (["apply", "-f", "/none.yaml"], 1, "Error: /none.yaml: No such file or directory"),
        (["up", "--plain"], 1, "is already up"),
        (["restart", "node-3"], 1, "Error: no node 'node-3' in the laboratory; did you mean node-"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_no_stack(
    plain: Demo, words: list[str], status: int, message: str
) -> None:
    done = plain(*words)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_yaml_is_named_by_file_and_line_and_nothing_is_made(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: 1\nb: c: d\n")
    done = demo("up", str(tmp_path))
    assert done.returncode == 1
    assert (
        done.stderr
        == f"Error: {tmp_path}/bad.yaml:2: not YAML: mapping values are not allowed in this context\n"
    )
    assert demo("status").stderr.startswith("Error: there is no laboratory")


DENY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: slip, namespace: shop}
spec: {action: DENY, rules: [{from: [{source: {principals: ["*"]}}]}]}
"""


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "principals",
            "principls",
            ":4: spec.rules[0].from[0].source.principls: unknown field; did you mean",
        ),
        (
            "Policy\n",
            "Policie\n",
            ":2: kind: no kind 'AuthorizationPolicie' in security.istio.io; did you mean",
        ),
        ("DENY", "Deny", ":4: spec.action: must be one of ALLOW, DENY, AUDIT, CUSTOM"),
        ("spec:", "spec: " + "[" * 200_000, ":1: nested deeper than 100 levels"),
        ("spec:", "sepc:", ":4: sepc: unknown field; did you mean spec?"),
    ],
)
def test_what_would_not_come_into_force_is_refused_and_not_stored(
    plain: Demo, tmp_path: Path, before: str, after: str, said: str
) -> None:
    (tmp_path / "p.yaml").write_text(DENY.replace(before, after))
    for done, name in (
        (plain("apply", "-f", str(tmp_path / "p.yaml")), str(tmp_path / "p.yaml")),
        (plain("apply", "-f", "-", text=DENY.replace(before, after)), "<stdin>"),
    ):
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{name}{said}" in done.stderr
    assert "not in the laboratory" in plain("apply", "--delete", "-f", "-", text=DENY).stderr


def test_a_byte_order_mark_is_no_part_of_what_is_stored(plain: Demo) -> None:
    good = plain("apply", "-f", "-", text="\ufeff" + DENY)
    assert good.stdout == "AuthorizationPolicy shop/slip added\n"
    assert plain("exec", "load", "--", "true").returncode == 0
    gone = plain("apply", "--delete", "-f", "-", text=DENY)
    assert gone.stdout == "AuthorizationPolicy shop/slip removed\n"


def test_what_is_not_read_is_said_and_a_pod_there_must_be(demo: Demo, tmp_path: Path) -> None:
    text = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: c}\n"
    (tmp_path / "a.yaml").write_text(text)
    done = demo("up", "--plain", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{tmp_path}/a.yaml:1: LimitRange default/c: not read",
        "Error: no pod comes of these manifests (0 objects were read, 1 were not): "
        "give Pods, Deployments or the like",
    ]
    assert demo("down").stdout.startswith("There is nothing left")
    done = demo("up", "--plain", "-", text=f"{text}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\n")
    assert (done.returncode, done.stderr) == (0, "<stdin>:1: LimitRange default/c: not read\n")
    assert demo("apply", "-f", "-", text=text).stderr == "<stdin>:1: LimitRange default/c: not read\n"


def test_status_is_for_programs_too_and_a_proxy_is_restarted(demo: Demo) -> None:
    demo("up")
    found = json.loads(demo("status", "-o", "json").stdout)
    assert [node["proxy"] for node in found["nodes"]] == ["ready", "ready"]
    assert {pod["name"]: pod["enrolled"] for pod in found["pods"]}["frontend-1"] is True
    for words in (["node-1"], ["node-1", "--kill"]):
        assert demo("restart", *words).stdout == "The proxy of node-1 is ready.\n"
    assert "Not enrolled" not in demo("status").stdout


def test_what_a_change_means_is_said_to_who_makes_it(plain: Demo) -> None:
    done = plain("apply", "-f", "-", text=DENY.replace("DENY", "AUDIT"))
    assert (done.returncode, done.stdout) == (0, "AuthorizationPolicy shop/slip added\n")
    assert (
        "Warning: AuthorizationPolicy shop/slip: node proxies do not support the AUDIT action" in done.stderr
    )
    assert plain("apply", "-f", "-", text=DENY.replace("DENY", "AUDIT")).stderr == ""
    done = plain("label", "namespace", "shop", "istio.io/dataplane-mode=Ambient")
    assert done.stderr.startswith("Warning: Namespace shop: istio.io/dataplane-mode=Ambient is neither")
    plain("label", "namespace", "shop", "istio.io/dataplane-mode=ambient")
    plain("apply", "--delete", "-f", "-", text=DENY)
