"""Which other port stands for one that is not to be had."""

from __future__ import annotations

from typing import Final

_PRIVILEGED: Final = 1024


def port_beside(port: int) -> int:
    """For a client whose own port is taken, as in plaintext by our accepted socket: another one of the same
    class, privileged or not, and always the same one.

    A call that the client itself makes from it to the same application would be lost while this one lives. So
    it lies where clients rarely call from: below 512, or between 16384 and 32767.
    """
    if port < _PRIVILEGED:
        return port ^ 0x200 or 0x1FF
    if 0x4000 <= port < 0x8000:
        return port ^ 0x2000
    return port & 0x3FFF | 0x4000


def ports_instead(port: int) -> list[int]:
    """What to try in turn in the place of a client's port; 0 is any, 0 is for a client without one. Servers
    may ask for a privileged one (exports(5): secure), and netfilter keeps the class, too, where it translates
    one."""
    return [port_beside(port), 0] if 0 < port < _PRIVILEGED else [0]
