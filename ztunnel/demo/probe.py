"""Carries out readiness probes as a kubelet does, when pods start and with every later change.

Probes of containers in whose place the echo server stands are not carried out: they are ready when it
listens.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence

from ztunnel.demo import command, run
from ztunnel.demo.call import ask
from ztunnel.demo.cluster import Pod
from ztunnel.demo.containers import Probe
from ztunnel.demo.manifest import Key
from ztunnel.demo.names import Names
from ztunnel.errors import reason_of
from ztunnel.kernel.netns import NetworkNamespace

_MOST_SECONDS = 10.0
"""Nobody waits longer for a pod that starts; a later change probes it again."""

_ONE_SECONDS = 2.0
_ENDED = "its command has ended"
_PAUSE_SECONDS = 0.05


def probe(names: Names, pods: Iterable[Pod], started: Sequence[run.Started]) -> dict[Key, str]:
    """Why each pod that has a probe is not ready, empty where it is. Those that start are given time."""
    begun = time.monotonic()
    pods = list(pods)
    waiting = {pod.uid: pod for pod in pods if command.probed(pod)}
    found = {
        Key("", "Pod", pod.namespace, pod.name): _ENDED if _has_ended(names, pod, started) else ""
        for pod in pods
        if pod.uid not in waiting and any(not each.stands_in for each in command.programs(pod))
    }
    while waiting:
        for uid, pod in tuple(waiting.items()):
            key, reason = Key("", "Pod", pod.namespace, pod.name), _failing(names, pod)
            found[key] = reason
            patience = max(each.patience_seconds for each in command.probed(pod))
            passed = time.monotonic() - begun
            lives = any(each.pod.uid == uid and each.process.poll() is None for each in started)
            if not reason or not lives or passed > min(patience, _MOST_SECONDS):
                del waiting[uid]
        if waiting:
            time.sleep(_PAUSE_SECONDS)
    return found


def _has_ended(names: Names, pod: Pod, started: Sequence[run.Started]) -> bool:
    """Whether none of its programs runs; one that was just started may not be in its cgroup yet."""
    own = [each.process for each in started if each.pod.uid == pod.uid]
    if own:
        return all(process.poll() is not None for process in own)
    return not run.populated(names.pod_cgroup(pod.node.name, pod.uid))


def _failing(names: Names, pod: Pod) -> str:
    for each in command.probed(pod):
        if reason := _ask(names, pod, each):
            return f"{each} {reason}"
    return ""


def _ask(names: Names, pod: Pod, each: Probe) -> str:
    """Why a probe fails; empty if it does not. What listens for one family only is asked in that one."""
    if each.command:
        return _run(names, pod, each)
    netns = names.netns(names.node(pod.node.name) if pod.host_network else names.pod(pod.namespace, pod.name))
    reason = ""
    for family, address in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")):
        try:
            with NetworkNamespace.open(netns) as namespace:
                sock = namespace.socket(family, socket.SOCK_STREAM)
            with sock:
                sock.settimeout(_ONE_SECONDS)
                sock.connect((address, each.port))
                status = ask(sock, each.port, each.path)[0] if each.path else 200
                return "" if 200 <= status < 400 else f"answers {status}"
        except (OSError, http.client.HTTPException) as error:
            reason = reason_of(error)
    return reason


def _run(names: Names, pod: Pod, each: Probe) -> str:
    try:
        done = subprocess.run(
            command.in_pod(names, pod, each.command),
            env=command.pod_environment(pod),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ONE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"takes longer than {_ONE_SECONDS:.0f} s"
    return f"ends with {done.returncode}" if done.returncode else ""
