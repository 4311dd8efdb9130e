"""Between nodes nothing is readable: what passes the link between them, with the mesh and without it."""

from __future__ import annotations

import secrets

from ztunnel.demo.capture import Capture
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.claims.hello import TLS_1_3, server_version
from ztunnel.demo.claims.shop import Shop
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.model.address import Endpoint
from ztunnel.state.lookup import HBONE_PORT

MARKS = 3000


def new_mark() -> str:
    """Thirty-three letters that occur nowhere else, and do not begin like HTTP."""
    return "m" + secrets.token_hex(16)


def count_marks(capture: Capture, mark: str) -> int:
    """How often a mark stands in the frames, both ways; one that is split between two frames is not seen."""
    wanted = mark.encode()
    return sum(frame.count(wanted) for frame in capture.frames)


def reads_plain(capture: Capture, port: int) -> bool:
    """Whether any payload passed to or from this port."""
    return any(
        part.payload and port in (part.source.port, part.destination.port) for part in capture.segments
    )


def _send(shop: Shop, to: Endpoint, mark: str) -> None:
    caller = shop.caller("load")
    sent = caller.open("marked", to)
    if not sent.error:
        sent = caller.exchange("marked", mark, MARKS)
    caller.close("marked")
    if sent.error:
        raise LaboratoryFailed(f"the marked payload did not come back from {to}: {sent.error}")


def _measure(shop: Shop, findings: Findings) -> None:
    mark, to = new_mark(), shop.pod("orders-2")
    kib = len(mark) * MARKS / 1024
    with shop.laboratory.capture() as capture:
        _send(shop, to, mark)
        seen, versions = count_marks(capture, mark), _versions(capture, to)
    findings.note(f"{seen} of {2 * MARKS} marks in {kib:.0f} KiB and their echo on the link", seen == 0)
    shown = ", ".join(f"{version:#06x}" for version in sorted(versions)) or "none"
    findings.note(f"ServerHello on {HBONE_PORT}: {shown}", versions == {TLS_1_3})
    try:
        shop.set_mesh("none")
        with shop.laboratory.capture() as capture:
            _send(shop, to, mark)
            plain = count_marks(capture, mark)
    finally:
        shop.set_mesh("ambient")
    findings.note(f"label off: {plain} marks", plain > MARKS)
    with shop.laboratory.capture() as capture:
        _send(shop, to, mark)
        seen, open_port = count_marks(capture, mark), reads_plain(capture, to.port)
    findings.note(f"label on again: {seen}", seen == 0 and not open_port)


def _versions(capture: Capture, pod: Endpoint) -> set[int]:
    tunnel = Endpoint(pod.ip, HBONE_PORT)
    found = (server_version(part.payload) for part in capture.segments if part.source == tunnel)
    return {version for version in found if version is not None}


CLAIM = Claim(
    1,
    "Between nodes nothing is readable",
    "a capture on the link between the nodes while a marked payload passes",
    _measure,
)
