"""`ztunnel node` where it cannot run: one sentence, an exit status, and nothing left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.kernel.lab import CACHE, unique, wait_until
from ztunnel.cli.main import main
from ztunnel.demo import run
from ztunnel.kernel import cgroup

ROOT = Path(__file__).parents[2]
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: t}\nspec: {nodeName: n1}\n"

_HOLD = "import socket,subprocess,sys; held=socket.create_server(('127.0.0.1',int(sys.argv[1]))); "
_HOLD += "sys.exit(subprocess.run(sys.argv[2:]).returncode)"
_NOBODY = "import os,sys; import trio,ztunnel.cli.node; os.setuid(65534); "
_NOBODY += "from ztunnel.cli.main import main; main(sys.argv[1:])"


@dataclass
class Machine:
    """A place to start a proxy in: its own files, cgroup and, for each start, network and mount namespace."""

    path: Path
    pins: Path
    cgroup: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def flags(self) -> dict[str, object]:
        return {
            "--node": "n1",
            "--manifests": self.path / "manifests",
            "--state-dir": self.path / "state",
            "--cache-dir": self.path / "cache",
            "--run-dir": self.path / "run",
            "--pins": self.pins,
            "--pod-netns": "/run/netns/none-{namespace}-{name}",
        }

    def command(self, changes: dict[str, object], before: Sequence[str], script: str) -> list[str]:
        flags = {**self.flags, **changes}
        words = [str(word) for pair in flags.items() if pair[1] is not None for word in pair]
        enter = f'echo 0 > "{self.cgroup}/cgroup.procs" && ip link set lo up && {script}'
        python = before or [sys.executable, "-m", "ztunnel"]
        return [
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            f'{enter} exec "$@"',
            "sh",
            *python,
            "node",
            *words,
        ]

    def start(self, **changes: object) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        before, script = changes.pop("before", ()), str(changes.pop("script", ""))
        flags = {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
        command = self.command(flags, before, script)
        env = {**os.environ, **self.environment, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=50)

    def refused(self, **changes: object) -> str:
        """The one sentence; nothing was pinned."""
        done = self.start(**changes)
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        assert not self.pins.exists()
        [line] = done.stderr.splitlines()
        assert line.startswith("Error: ")
        return line.removeprefix("Error: ")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    name = unique()
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "pod.yaml").write_text(POD)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "bpf").symlink_to(CACHE)
    made = Machine(tmp_path, Path("/sys/fs/bpf/ztunnel", name), cgroup.create(cgroup.find_root() / name))
    yield made
    run.end(made.cgroup)
    CliRunner().invoke(main, ["clean", "--pins", str(made.pins), "--force"], catch_exceptions=False)


# --- what is missing on the command line ---------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which node is this? Give --node NAME, or set NODE_NAME"),
        (["--node", "n1"], "no control plane: give --manifests DIR"),
    ],
)
def test_what_has_to_be_said_is_asked_for(words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(
        main, ["node", *words], env={"NODE_NAME": None, "KUBERNETES_SERVICE_HOST": None}
    )
    assert done.exit_code == 2
    assert sentence in done.output


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        (["--log-level", "loud"], {}, "command line: --log-level: 'loud' is not <level>"),
        ([], {"LOG_LEVEL": "loud"}, "environment: LOG_LEVEL: 'loud' is not <level>"),
        (["--log-level", "loud"], {"LOG_LEVEL": "info"}, "command line: --log-level"),
        (["--pod-netns", "relative"], {}, "--pod-netns: 'relative' is not an absolute path"),
        (["--state-dir", "x"], {"SECRET_TTL": "1"}, "environment: SECRET_TTL: '1' is not a duration"),
    ],
)
def test_wrong_settings_are_named_with_their_source(
    words: list[str], environment: dict[str, str], sentence: str
) -> None:
    done = CliRunner().invoke(main, ["node", "--node", "n1", *words], env=environment)
    assert done.exit_code == 1
    assert sentence in done.output


def test_a_flag_beats_the_environment_and_that_beats_the_mesh_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "etc/istio/config").mkdir(parents=True)
    mesh = tmp_path / "etc/istio/config/mesh"
    mesh.write_text("defaultConfig: {proxyMetadata: {NODE_NAME: n3}}")
    for environment in ({"NODE_NAME": "n2"}, {}):
        done = CliRunner().invoke(main, ["node"], env=environment)
        assert "no control plane" in done.output
    done = CliRunner().invoke(main, ["node", "--node", ""], env={"NODE_NAME": "n2"})
    assert "which node is this?" in done.output
    mesh.write_bytes(b"\xff")
    done = CliRunner().invoke(main, ["node"])
    assert done.exit_code == 1
    assert "etc/istio/config/mesh: cannot be read" in done.output


# --- what is wrong with the machine --------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("port", [15000, 15020, 15021])
def test_a_taken_port(machine: Machine, port: int) -> None:
    before = [sys.executable, "-c", _HOLD, str(port), sys.executable, "-m", "ztunnel"]
    sentence = machine.refused(before=before)
    assert f":{port}: Address already in use: stop who listens there, or set ZTUNNEL_" in sentence


@pytest.mark.root
def test_not_root(machine: Machine) -> None:
    sentence = machine.refused(before=[sys.executable, "-c", _NOBODY])
    assert sentence.startswith("redirection needs root")
    assert not (machine.path / "state").exists()


@pytest.mark.root
def test_the_root_cgroup(machine: Machine) -> None:
    root = cgroup.find_root()
    sentence = machine.refused(script=f'echo 0 > "{root}/cgroup.procs" && ')
    assert sentence.startswith("the proxy is in the root cgroup")


@pytest.mark.root
def test_no_bpffs(machine: Machine) -> None:
    sentence = machine.refused(pins=machine.path / "pins")
    assert "is on no bpffs: choose a place under /sys/fs/bpf" in sentence
    assert not (machine.path / "pins").exists()


@pytest.mark.root
def test_no_kernel_headers(machine: Machine) -> None:
    hide = "mount -t tmpfs none /usr/src && mount -t tmpfs none /lib/modules && "
    assert machine.refused(cache_dir=machine.path / "empty", script=hide) == (
        "no kernel headers are installed: apt-get install linux-headers-amd64"
    )


@pytest.mark.root
def test_manifests_that_are_missing_or_wrong(machine: Machine) -> None:
    assert str(machine.path / "none") in machine.refused(manifests=machine.path / "none")
    (machine.path / "manifests" / "pod.yaml").write_text("kind: [")
    assert "pod.yaml:1: " in machine.refused()
    assert not (machine.path / "state").exists()


@pytest.mark.root
def test_a_state_directory_that_cannot_be_made(machine: Machine) -> None:
    (machine.path / "state").touch()
    sentence = machine.refused()
    assert str(machine.path / "state") in sentence
    assert "the root key and certificate need a directory" in sentence


@pytest.mark.root
def test_a_cache_that_cannot_be_made(machine: Machine) -> None:
    (machine.path / "file").touch()
    assert machine.refused(cache_dir=machine.path / "file") == (
        f"the redirection cannot be loaded: {machine.path}/file/bpf: Not a directory: "
        "compiled programs need a directory that can be written: set ZTUNNEL_CACHE_DIR"
    )


# --- the end during the start --------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_in_order(machine: Machine, number: signal.Signals) -> None:
    lock = machine.path / "cache" / "bpf" / f".{machine.pins.name}.lock"
    command = machine.command({}, (), "")
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with ExitStack() as stack:
        output = stack.enter_context((machine.path / "log").open("w"))
        held = stack.enter_context(lock.open("w"))
        stack.callback(lock.unlink)
        fcntl.flock(held, fcntl.LOCK_EX)  # another loader is at work
        proxy = stack.enter_context(
            subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=env)
        )
        stack.callback(proxy.kill)
        wait_until(lambda: "starting" in (machine.path / "log").read_text())
        proxy.send_signal(number)
        fcntl.flock(held, fcntl.LOCK_UN)
        assert proxy.wait() == 0
    log = (machine.path / "log").read_text()
    assert not [word for word in ("Traceback", "ready", "draining") if word in log]


@pytest.mark.root
def test_it_starts_where_nothing_is_missing(machine: Machine) -> None:
    command = machine.command({"--node": None}, (), "")
    env = {**os.environ, "NODE_NAME": "n1", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env) as proxy:
        assert proxy.stdout is not None
        lines = []
        for line in proxy.stdout:
            lines.append(line)
            if "\tready\t" in line:
                proxy.send_signal(signal.SIGTERM)
        assert proxy.wait() == 0
    said = [line.split("\t")[3].strip() for line in lines if "\tztunnel\t" in line]
    assert said == ["starting", "ready", "draining", "ended"]
    assert machine.pins.is_dir()
