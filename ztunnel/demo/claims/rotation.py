"""Certificates are replaced while traffic flows; and the proxy's mark does not let a pod out of the mesh."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ztunnel.demo.claims.certify import account
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.observe import served_serial
from ztunnel.demo.claims.secrecy import count_marks, new_mark
from ztunnel.demo.claims.shop import FAR, NEAR, Shop
from ztunnel.demo.claims.talk import Caller
from ztunnel.demo.command import module_command
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.model.address import Endpoint
from ztunnel.state.lookup import HBONE_PORT

MARKS = (1337, 0x111)
"""That of Istio's ztunnel, and the one that our own sockets carry towards applications."""

_AT_ONCE = 4
_ROTATION_SECONDS = 12.0
_NET_RAW = ("setpriv", "--inh-caps=-all,+net_raw", "--bounding-set=-all,+net_raw")


def _measure(shop: Shop, findings: Findings) -> None:
    to, caller = shop.pod("orders-2"), shop.caller("load")
    with _traffic(shop, to) as traffic:
        opened = caller.open("long", to)
        before = _serials(shop), served_serial(shop, "orders-2", account("load"))
        sessions = _session_ports(shop, to)
        _mark(shop, findings, to)
        waited = shop.until(
            "both ends have new certificates",
            lambda: all(new != old for new, old in zip(_serials(shop), before[0], strict=True)),
            seconds=_ROTATION_SECONDS,
        )
        valid = {_serial(shop, FAR, "orders")}
        served = served_serial(shop, "orders-2", account("load"))
        valid.add(_serial(shop, FAR, "orders"))
        anew = shop.until("a new session is open", lambda: bool(_session_ports(shop, to) - sessions))
        lives = not opened.error and caller.lives("long")
        caller.close("long")
    said = _end(traffic)
    calls = sum(said["answers"].values())
    errors = sum(said["errors"].values())
    text = f"{calls} calls during {said['seconds']:.1f} s, {errors} errors {said['errors'] or ''}".rstrip()
    findings.note(text, calls > 0 and errors == 0)
    findings.note(f"a tunnel from before {'lives on' if lives else 'is cut'}", lives)
    old, new = (f"...{serial % 0x10000:04x}" for serial in (before[1], served))
    text = f"the server's serial {old}, after {waited + anew:.1f} s {new}, in a new session"
    findings.note(text, served != before[1] and served in valid)


def _serials(shop: Shop) -> tuple[int, int]:
    """Those of the client's and of the server's account."""
    return _serial(shop, NEAR, "load"), _serial(shop, FAR, "orders")


def _serial(shop: Shop, node: str, account: str) -> int:
    for each in shop.dump(node)["certificates"]:
        if each["identity"].endswith(f"/sa/{account}") and each["certChain"]:
            return int(each["certChain"][0]["serialNumber"])
    return 0


def _session_ports(shop: Shop, to: Endpoint) -> set[int]:
    """The client's ports of the sessions to the server."""
    tunnel = Endpoint(to.ip, HBONE_PORT)
    return {each.local.port for each in shop.sockets("load") if each.remote == tunnel}


def _mark(shop: Shop, findings: Findings, to: Endpoint) -> None:
    """The same payload in a connection with each mark: none of it may be readable on the link."""
    mark = new_mark()
    with Caller(shop.laboratory, "load", _NET_RAW) as caller, shop.laboratory.capture() as capture:
        for number in MARKS:
            opened = caller.open("marked", to, mark=number)
            sent = opened if opened.error else caller.exchange("marked", mark, 30)
            caller.close("marked")
            seen = count_marks(capture, mark)
            text = f"SO_MARK {opened.mark:#x}: {sent.error or 'answered'}, {seen} marks on the link"
            findings.note(text, not sent.error and opened.mark == number and seen == 0)


@contextmanager
def _traffic(shop: Shop, to: Endpoint) -> Iterator[subprocess.Popen[str]]:
    """Calls without a pause, for `_end` to end; where the block fails they end with it."""
    command = module_command("ztunnel.demo.claims.load", to.ip, to.port)
    pipe = subprocess.PIPE
    process = shop.laboratory.popen(
        "load", [*command, str(_AT_ONCE), "0"], stdin=pipe, stdout=pipe, text=True
    )
    try:
        yield process
    except BaseException:
        process.kill()
        process.communicate()
        raise


def _end(traffic: subprocess.Popen[str]) -> dict[str, dict[str, int]]:
    try:
        text, _ = traffic.communicate(timeout=10.0)
        found: dict[str, dict[str, int]] = json.loads(text)
    except (subprocess.TimeoutExpired, ValueError) as error:
        traffic.kill()
        traffic.communicate()
        raise LaboratoryFailed(f"the traffic did not end: {error}") from error
    return found


CLAIM = Claim(
    8,
    "Certificates rotate under load; a mark does not let a pod out",
    "calls without pause across a rotation, the certificate in a TLS handshake before and after; "
    "a pod's process with CAP_NET_RAW and the proxy's SO_MARK, and a capture",
    _measure,
)
