"""`ztunnel control` as a process over an API server, for `bench.control`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
import yaml

GRACE_SECONDS = 60.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def control_plane(folder: Path, api_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`ztunnel control` over that API server."""
    cluster = {"name": "bench", "cluster": {"server": f"http://127.0.0.1:{api_port}"}}
    config = {
        "current-context": "bench", "clusters": [cluster], "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    names = ("ZTUNNEL_GRPC_ADDRESS", "ZTUNNEL_MONITORING_ADDRESS", "ZTUNNEL_READINESS_ADDRESS")
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(3), strict=True)}
    settings = {**addresses, "KUBECONFIG": str(folder / "kubeconfig"), "LOG_FORMAT": "json"}
    command = [os.environ.get("ZTUNNEL_PROGRAM", "ztunnel"), "control"]
    command += ["--state-dir", str(folder / "state")]
    process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def port_of(line: bytes) -> int:
    """The port that a line of the log names; 0 where it names none."""
    try:
        found = json.loads(line)
    except ValueError:
        return 0
    fields = found.get("fields", found)
    return int(fields.get("port", 0)) if fields.get("message") == "ready" else 0


def used(pid: int) -> tuple[float, float]:
    """Seconds of CPU so far, and MiB of memory now."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return (int(ticks[11]) + int(ticks[12])) / _TICKS, pages * _PAGE_BYTES / 2**20


async def ready(nursery: trio.Nursery, process: subprocess.Popen[bytes]) -> int:
    """The port on which the control plane serves, when it does; what it logs afterwards is passed on."""
    assert process.stdout is not None
    stream = trio.lowlevel.FdStream(os.dup(process.stdout.fileno()))
    found, ports = trio.Event(), list[int]()

    async def read() -> None:
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if port := port_of(line):
                    ports.append(port)
                    found.set()
                elif b"error" in line or b"warn" in line:
                    print(line.decode(errors="replace"), file=sys.stderr)

    nursery.start_soon(read)
    with trio.fail_after(GRACE_SECONDS):
        await found.wait()
    return ports[0]
