"""The command lines by which a process gets into a pod or node: its network namespace, its cgroup, its files.

Each is a chain of `exec`: the process that is started becomes the program itself, under the same number.
The cgroup comes before anything else, because the redirection knows a process by it.

What runs in pods is of the packages that run the laboratory. The node proxies are another program where the
environment names one: so tests of a checkout try the proxies as they are shipped.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.containers import Container, Probe
from ztunnel.demo.echo import IF_FREE
from ztunnel.demo.names import Names
from ztunnel.demo.waypoints import COMMAND as WAYPOINT

PROGRAM = "ZTUNNEL_PROGRAM"
"""The variable that names the `ztunnel` whose `node` is started: a path. Without it, it is our own."""

_PACKAGES = str(Path(__file__).parent.parent.parent)
_PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_DEFAULT_PORT = 8080  # of an echo server that is told no other

_JOIN = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
_ENTER_POD = """\
echo 0 > "$1/cgroup.procs" || exit 125
if [ -e /etc/hosts ]; then mount --bind "$2" /etc/hosts || exit 125; fi
if [ -e /etc/resolv.conf ]; then mount --bind "$3" /etc/resolv.conf || exit 125; fi
echo "$4" > /proc/sys/kernel/hostname
shift 4
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Program:
    """What is started in a pod; `stands_in` for the echo server in the place of images."""

    words: list[str]
    environment: Mapping[str, str]
    stands_in: bool = False


def in_pod(names: Names, pod: Pod, command: Sequence[str]) -> list[str]:
    """`command` in the network namespace, the cgroup and a private view of the files of a pod.

    The mounts are a slave of the machine's: a namespace that is removed there must not live on here.
    """
    netns = names.node(pod.node.name) if pod.host_network else names.pod(pod.namespace, pod.name)
    files = [str(path) for path in (names.hosts(pod.namespace, pod.name), names.resolv_conf)]
    cgroup = str(names.pod_cgroup(pod.node.name, pod.uid))
    script = ["sh", "-c", _ENTER_POD, "sh", cgroup, *files, pod.host_name]
    isolate = ["unshare", "--mount", "--uts", "--propagation", "slave"]
    return ["nsenter", f"--net={names.netns(netns)}", *isolate, *script, *command]


def in_node(names: Names, node: str, cgroup: Path, command: Sequence[str]) -> list[str]:
    """`command` in the network namespace of a node and in a cgroup; the file systems stay the machine's."""
    return [
        "nsenter",
        f"--net={names.netns(names.node(node))}",
        "sh",
        "-c",
        _JOIN,
        "sh",
        str(cgroup),
        *command,
    ]


def programs(pod: Pod) -> list[Program]:
    """What a pod runs: each container's command where this machine has the program, and for all others one
    echo server on all their ports.

    Where nothing but the echo server runs, it serves the ports that services and probes expect as well; 8080
    if there is none at all, on the host network only where that is free.
    """
    run = [one for one in pod.containers if one.command and _is_here(one.command[0])]
    rest = [one for one in pod.containers if one not in run]
    found = [Program(list(one.command), _environment(one)) for one in run]
    ports = dict.fromkeys(port for one in rest for port in one.ports)
    if not run:
        probed = [one.probe.port for one in rest if one.probe and one.probe.port]
        ports.update(dict.fromkeys([*pod.targets, *probed]))
        if not ports:
            wish = f"{_DEFAULT_PORT}{IF_FREE}" if pod.host_network else _DEFAULT_PORT
            words = module_command("ztunnel.demo.echo", wish)
            return [Program(words, _environment(rest[0]), stands_in=True)]
    for one in run:
        for port in one.ports:
            ports.pop(port, None)
    if ports:
        words = module_command("ztunnel.demo.echo", *ports)
        found.append(Program(words, _environment(rest[0]), stands_in=True))
    return found


def probed(pod: Pod) -> list[Probe]:
    """The probes that mean something: those of containers whose own command runs."""
    return [one.probe for one in pod.containers if one.probe and one.command and _is_here(one.command[0])]


def _is_here(program: str) -> bool:
    """Whether this machine has it; an image's own programs are nowhere."""
    found = str(Path("/", program)) if "/" in program else program
    return shutil.which(found, path=_PATH) is not None


def module_command(module: str, *words: object) -> list[str]:
    """A module of ours in a pod, quickly; PYTHONPATH of `pod_environment` leads to it, never the directory
    where somebody stands."""
    return [sys.executable, "-S", "-P", "-m", module, *map(str, words)]


def pod_environment(pod: Pod) -> dict[str, str]:
    """The environment of a command in a pod: that of its first container."""
    return _environment(pod.containers[0])


def _environment(container: Container) -> dict[str, str]:
    """`python3` and `ztunnel` are those that run the laboratory."""
    known = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "xterm", "PYTHONPATH": _PACKAGES}
    return {**known, "PYTHONDONTWRITEBYTECODE": "1", **container.environment}


def program(inherited: Mapping[str, str]) -> list[str]:
    """The `ztunnel` that node proxies are, as the environment of the command that starts them has it."""
    given = inherited.get(PROGRAM)
    return [str(Path(given).absolute())] if given else [sys.executable, "-P", "-m", "ztunnel"]


def node_command(names: Names, node: Node, inherited: Mapping[str, str]) -> list[str]:
    """The node proxy of a node."""
    source: dict[str, object] = {"--manifests": names.manifests, "--state-dir": names.directory / "state"}
    options: dict[str, object] = {
        "--node": node.name,
        **({} if names.control.exists() else source),
        "--run-dir": names.node_directory(node.name),
        "--pins": names.pins(node.name),
        "--pod-netns": names.pod_netns_pattern,
    }
    words = [str(word) for option in options.items() for word in option]
    return [*program(inherited), "node", *words]


def is_waypoint(pod: Pod) -> bool:
    """Whether a waypoint of ours runs in it."""
    return any(one.command[: len(WAYPOINT)] == WAYPOINT for one in pod.containers)


def completed(
    names: Names, each: Program, inherited: Mapping[str, str], variables: Mapping[str, str] | None = None
) -> tuple[list[str], Mapping[str, str]]:
    """The command line and environment of a pod's program. A waypoint is the `ztunnel` that node proxies are,
    and is told what they are told: where the manifests are, or by `variables` where the control plane is."""
    if tuple(each.words[: len(WAYPOINT)]) != WAYPOINT:
        return each.words, each.environment
    folder = ["--manifests", str(names.manifests), "--state-dir", str(names.directory / "state")]
    own = {name: value for name, value in each.environment.items() if name not in ("PATH", "PYTHONPATH")}
    source = [] if variables else folder
    words = [*program(inherited), *WAYPOINT[1:], *source, *each.words[len(WAYPOINT) :]]
    return words, {**node_environment(inherited), **own, **(variables or {})}


def node_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a node proxy: that of the command that starts it, with our packages in reach unless
    it is another program, which has its own."""
    search = ":".join(filter(None, [_PACKAGES, inherited.get("PYTHONPATH")]))
    packages = {} if inherited.get(PROGRAM) else {"PYTHONPATH": search}
    kept = {name: value for name, value in inherited.items() if name != "PYTHONPATH"}
    return {**kept, **packages, "PYTHONUNBUFFERED": "1"}
