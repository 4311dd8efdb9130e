"""Something behind pod `b` of the laboratory, as a container engine has it: a namespace that it forwards for.

     b eth0 ── v0 172.31.0.1 fd31::1 ── inner 172.31.0.2 fd31::2  behind

With `nat`, port 9090 of the pod is translated to port 8080 behind it, and what leaves comes from the pod's
address; without, others reach it by routes, and nothing tracks connections. A second one has the number 1:
172.31.1.0/24, fd31:1::/64.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack

from tests.kernel.lab import Lab, ip, shell, unique
from ztunnel.kernel.netns import NetworkNamespace

IN_POD = """
addr add 172.31.{n}.1/24 dev v{n}
addr add {v6}1/64 dev v{n} nodad
link set v{n} up
"""
BEHIND = """
link set lo up
addr add 172.31.{n}.2/24 dev inner
addr add {v6}2/64 dev inner nodad
link set inner up
route add default via 172.31.{n}.1
route add default via {v6}1
"""
NAT = """
table inet behind {
  chain pre { type nat hook prerouting priority -100;
    iifname eth0 tcp dport 9090 dnat ip to 172.31.0.2:8080
    iifname eth0 tcp dport 9090 dnat ip6 to [fd31::2]:8080
  }
  chain post { type nat hook postrouting priority 100;
    oifname eth0 ip saddr 172.31.0.0/24 masquerade
    oifname eth0 ip6 saddr fd31::/64 masquerade
  }
}
"""
ROUTES = "route {verb} 172.31.0.0/24 via 10.77.0.3\nroute {verb} fd31::/64 via fd77::3"
FORWARDING = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


class Behind:
    """Use as a context manager. `netns` is its namespace, `nat` as given."""

    def __init__(self, lab: Lab, nat: bool = True, number: int = 0) -> None:
        self.name = unique()
        self.nat = nat
        self._lab, self._number = lab, number
        self._stack = ExitStack()

    def __enter__(self) -> Behind:
        pod, number = self._lab.names["b"], self._number
        words = {"n": number, "v6": f"fd31:{number}::" if number else "fd31::", "behind": self.name}
        with ExitStack() as stack:
            subprocess.run(["ip", "netns", "add", self.name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", self.name], check=True)
            ip(pod, f"link add v{number} type veth peer name inner netns {self.name}")
            stack.callback(ip, pod, f"link del v{number}")
            for netns, link in ((pod, f"v{number}"), (self.name, "inner")):
                # Neighbours are asked for with a link-local address, which else has to be waited for.
                shell(netns, f"echo 0 > /proc/sys/net/ipv6/conf/{link}/accept_dad")
            ip(pod, IN_POD.format(**words))
            ip(self.name, BEHIND.format(**words))
            if not number:
                self._reach(stack, pod)
            self.netns = stack.enter_context(NetworkNamespace.open(f"/run/netns/{self.name}"))
            self._stack = stack.pop_all()
        return self

    def _reach(self, stack: ExitStack, pod: str) -> None:
        for name in FORWARDING:
            shell(pod, f"echo 1 > /proc/sys/net/{name}")
            stack.callback(shell, pod, f"echo 0 > /proc/sys/net/{name}")
        if self.nat:
            subprocess.run(["ip", "netns", "exec", pod, "nft", "-f", "-"], input=NAT, text=True, check=True)
            stack.callback(shell, pod, "nft delete table inet behind")
        else:
            ip(self._lab.names["a"], ROUTES.format(verb="add"))
            stack.callback(ip, self._lab.names["a"], ROUTES.format(verb="del"))

    def __exit__(self, *_: object) -> None:
        self._stack.close()
