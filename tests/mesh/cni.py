"""Istio's CNI agent for one node of the laboratory: it names pods to the node proxy, and sets the rules in
them that Istio sets."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.mesh.lab import Mesh, wait_until
from tests.zds.agent import SECONDS, Agent, Connected, add, delete, keep, snapshot
from ztunnel.zds.message import Named

PROBE_SOURCES = "169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"
"""What the kubelet's connections to pods come from on their node (Istio: HOST_PROBE_SNAT_ADDRESS)."""

_TABLES = "istio-ambient-nat", "istio-ambient-mangle", "istio-ambient-raw"

_RULES = Path(__file__).parent / "rules"
REDIRECT, TPROXY = (_RULES / "redirect.nft").read_text(), (_RULES / "tproxy.nft").read_text()
"""What Istio sets in a pod now, and what it set in its first versions."""


def _in(netns: str, *words: str, text: str | None = None, check: bool = True) -> None:
    run = ["nsenter", f"--net={netns}", *words]
    subprocess.run(run, input=text, text=True, check=check, capture_output=True)


def redirect(netns: str, rules: str = REDIRECT) -> None:
    """CreateInpodRules: the rules; and rule and route (cni/pkg/iptables/iptables_linux.go)."""
    for family, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        _in(netns, "ip", family, "route", "replace", "local", everything, "dev", "lo", "table", "100")
        with suppress(subprocess.CalledProcessError):  # it is there
            _in(
                netns, "ip", family, "rule", "add", "fwmark", "0x111/0xfff", "pref", "32764", "lookup", "100"
            )  # fmt: skip
    _in(netns, "nft", "-f", "-", text=rules)


def release(netns: str) -> None:
    """DeleteInpodRules of cni/pkg/iptables, after which the hooks themselves stay."""
    for table in _TABLES:
        _in(netns, "nft", f"flush table inet {table}", check=False)
    for family in ("-4", "-6"):
        _in(netns, "ip", family, "rule", "del", "pref", "32764", check=False)
        _in(netns, "ip", family, "route", "flush", "table", "100", check=False)


class CniAgent:
    """As the DaemonSet `istio-cni-node`: whoever connects gets all pods, then each change."""

    def __init__(self, mesh: Mesh, path: Path, pods: Sequence[str], rules: str = REDIRECT) -> None:
        self.mesh = mesh
        self.path = path
        self.rules = rules
        self.pods: dict[str, str] = {}
        """The pods that are named, `namespace/name`, and their uids."""
        self.kept: set[str] = set()
        """Those whose namespace this agent does not have."""
        self.proxies: list[Connected] = []
        self.answers: list[str] = []
        self._lock = threading.RLock()
        self._agent: Agent | None = None
        self._thread: threading.Thread | None = None
        for pod in pods:
            redirect(mesh.netns(pod), rules)
            self.pods[pod] = f"uid-of-{pod}"

    # -- the process --

    def start(self) -> None:
        self._agent = agent = Agent(self.path)
        self._thread = threading.Thread(target=self._accept, args=[agent])
        self._thread.start()

    def stop(self) -> None:
        """As when it is killed."""
        agent, thread = self._agent, self._thread
        self._agent = self._thread = None
        if agent is not None and thread is not None:
            agent.listener.shutdown(2)
            thread.join()
            agent.close()
        self.lose()

    def lose(self) -> None:
        """Every proxy that has connected has gone, or is left."""
        with self._lock:
            for proxy in self.proxies:
                proxy.close()
            self.proxies.clear()

    def _accept(self, agent: Agent) -> None:
        agent.listener.settimeout(None)
        while True:
            try:
                proxy = agent.accept()
            except OSError:
                return
            with self._lock:
                for pod in self.pods:
                    if pod in self.kept:
                        self.answers.append(proxy.send(keep(self.pods[pod])))
                    else:
                        self.answers.append(self._named(proxy, pod))
                self.answers.append(proxy.send(snapshot()))
                self.proxies.append(proxy)

    def _named(self, proxy: Connected, pod: str) -> str:
        space, _, name = pod.partition("/")
        with open(self.mesh.netns(pod), "rb") as there:
            return proxy.send(add(self.pods[pod], Named(name, space, name)), there.fileno())

    # -- pods --

    def add(self, pod: str) -> str:
        """Put it into the mesh: rules, then the newest proxy; what that answers."""
        redirect(self.mesh.netns(pod), self.rules)
        with self._lock:
            self.pods[pod] = f"uid-of-{pod}"
            return self._named(self.proxies[-1], pod)

    def remove(self, pod: str, rules: bool = True) -> None:
        """Take it out: all proxies hear of it."""
        if rules:
            release(self.mesh.netns(pod))
        with self._lock:
            told = delete(self.pods.pop(pod))
            for proxy in self.proxies:
                assert proxy.send(told) == ""

    def forget(self, pod: str) -> None:
        """It is gone while nobody was there to hear of it."""
        self.pods.pop(pod)

    def connected(self, count: int = 1) -> None:
        """Wait for so many proxies that have all pods."""
        wait_until(lambda: len(self.proxies) >= count, f"{count} proxies connected", SECONDS)
