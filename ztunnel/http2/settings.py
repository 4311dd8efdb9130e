"""The settings of a peer (RFC 9113 section 6.5): read, checked, and what they mean for us."""

from __future__ import annotations

from ztunnel.errors import PeerError
from ztunnel.http2.frame import DEFAULT_FRAME_BYTES, MAX_WINDOW, Code, Setting

_LIMITS: dict[int, tuple[int, int, Code]] = {
    Setting.ENABLE_PUSH: (0, 1, Code.PROTOCOL_ERROR),
    Setting.INITIAL_WINDOW_SIZE: (0, MAX_WINDOW, Code.FLOW_CONTROL_ERROR),
    Setting.MAX_FRAME_SIZE: (DEFAULT_FRAME_BYTES, 2**24 - 1, Code.PROTOCOL_ERROR),
}


def pull_settings(untrusted: bytes) -> dict[int, int]:
    """The values of a SETTINGS frame; of one that stands twice the last (RFC 9113 section 6.5.3), unknown
    ones too.

    Raises:
        PeerError: a wrong size, or a value that RFC 9113 section 6.5.2 forbids.
    """
    if len(untrusted) % 6:
        raise PeerError("SETTINGS of a wrong size", Code.FRAME_SIZE_ERROR)
    settings: dict[int, int] = {}
    for at in range(0, len(untrusted), 6):
        key = int.from_bytes(untrusted[at : at + 2], "big")
        value = int.from_bytes(untrusted[at + 2 : at + 6], "big")
        if key in _LIMITS:
            least, most, code = _LIMITS[key]
            if not least <= value <= most:
                raise PeerError(f"{Setting(key).name} of {value}", code)
        settings[key] = value
    return settings
