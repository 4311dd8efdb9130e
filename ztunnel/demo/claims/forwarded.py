"""What a pod only forwards, for a container behind it, is under policy in both directions."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Interface, IPv4Network

from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.direct import STRICT
from ztunnel.demo.claims.enforce import enforced
from ztunnel.demo.claims.secrecy import count_marks, new_mark
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.command import module_command
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.lookup import pod_named
from ztunnel.kernel import named
from ztunnel.kernel.links import change
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.topology import Assign, Route, Unlink, Up, Veth
from ztunnel.model.address import Endpoint

_HOST = "orders-1"
_PUBLISHED, _INNER = 9090, 8080
_HOST_END, _INNER_END = IPv4Interface("172.31.0.1/24"), IPv4Interface("172.31.0.2/24")
_NAT = f"""
table ip behind {{
  chain pre {{ type nat hook prerouting priority -100;
    iifname eth0 tcp dport {_PUBLISHED} dnat to 172.31.0.2:{_INNER}
  }}
  chain post {{ type nat hook postrouting priority 100;
    oifname eth0 ip saddr 172.31.0.0/24 masquerade
  }}
}}
"""


def _measure(shop: Shop, findings: Findings) -> None:
    host = pod_named(shop.cluster, _HOST)
    published = Endpoint(shop.pod(_HOST).ip, _PUBLISHED)
    with _container(shop) as container:
        let_in = shop.caller("client").call(published)
        findings.note(f"inwards, PERMISSIVE: {let_in.error or 'answered'}", not let_in.error)
        with enforced(shop, STRICT):
            refused = shop.caller("client").call(published)
            findings.note(f"inwards, STRICT: {refused.error or 'LET IN'}", bool(refused.error))
        mark = new_mark()
        with shop.laboratory.capture() as capture:
            said = _call_out(shop, container, f"http://{shop.pod('orders-2')}/{mark}")
            marks = count_marks(capture, mark)
        text = f"outwards: {'refused' if said else 'ANSWERED'}, {marks} marks on the link between the nodes"
        findings.note(text, bool(said) and marks == 0)
    said_why = _is_said(shop, host.node.name, "ztunnel.io/forwarding")
    findings.note(
        "the log says why, and how to allow it" if said_why else "the log does not say why", said_why
    )


def _is_said(shop: Shop, node: str, text: str) -> bool:
    """Whether a node's log says it soon: lines leave in batches."""
    try:
        shop.until(f"the log of {node} says {text}", lambda: text in shop.laboratory.node_log(node))
    except LaboratoryFailed:
        return False
    return True


def _call_out(shop: Shop, container: str, url: str) -> str:
    """How curl ends in the container: empty where it was answered."""
    words = ["curl", "--silent", "--show-error", "--max-time", "3", "--output", "/dev/null", url]
    done = shop.laboratory.exec(_HOST, _there(container, words))
    return done.stderr if done.returncode else ""


@contextmanager
def _container(shop: Shop) -> Iterator[str]:
    """A network namespace behind a pod, with a server that the pod publishes; gives its name."""
    pod = shop.laboratory.names.netns(shop.laboratory.names.pod("shop", _HOST)).name
    name = f"{pod}-behind"
    with ExitStack() as undo:
        path = shop.laboratory.names.netns(name)
        named.create(path)
        undo.callback(named.remove, path)
        with shop.network_of(_HOST) as network, NetworkNamespace.open(path) as inner:
            change(network, [Veth("behind0", "inner0", path), Assign("behind0", _HOST_END), Up("behind0")])
            undo.callback(_unlink, shop)
            default = Route(IPv4Network("0.0.0.0/0"), via=_HOST_END.ip)
            change(inner, [Up("lo"), Assign("inner0", _INNER_END), Up("inner0"), default])
            before = network.read_sysctl("net.ipv4.ip_forward")
            network.write_sysctl("net.ipv4.ip_forward", "1")
        undo.callback(_forward, shop, before)
        _run(_there(pod, ["nft", "-f", "-"]), _NAT)
        undo.callback(_run, _there(pod, ["nft", "delete", "table", "ip", "behind"]))
        words = _there(name, module_command("ztunnel.demo.echo", _INNER))
        server = shop.laboratory.popen(_HOST, words, stdout=subprocess.DEVNULL)
        undo.callback(server.wait)
        undo.callback(server.kill)
        shop.until("the server behind the pod listens", lambda: _listens(name))
        yield name


def _listens(container: str) -> bool:
    words = f"ss -Hltn sport = :{_INNER}".split()
    done = subprocess.run(_there(container, words), capture_output=True, text=True, check=False)
    return bool(done.stdout)


def _unlink(shop: Shop) -> None:
    with shop.network_of(_HOST) as network:
        change(network, [Unlink("behind0")])


def _forward(shop: Shop, value: str) -> None:
    with shop.network_of(_HOST) as network:
        network.write_sysctl("net.ipv4.ip_forward", value)


def _there(namespace: str, words: Sequence[str]) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{namespace}", *words]


def _run(words: Sequence[str], text: str = "") -> None:
    """Raises LaboratoryFailed."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LaboratoryFailed(f"{' '.join(words)}: {done.stderr.strip()}")


CLAIM = Claim(
    13,
    "What a pod forwards is under its policies",
    "a container behind a pod: a published port under STRICT, a call outwards, a mark on the wire",
    _measure,
)
