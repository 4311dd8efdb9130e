r"""The path of a request in one spelling (Istio's pathNormalization BASE: RFC 3986, and `\` is `/`).

What is judged is what is forwarded: a path that cannot be brought to one spelling is refused. Slashes are not
merged, and `%2F` stays what it is, as in Istio; both can be asked for (its MERGE_SLASHES and
DECODE_AND_MERGE_SLASHES), where servers do so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

_TARGET: Final = re.compile(rb"[!-~]+")
_ENCODED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SLASHES: Final = re.compile(rb"/{2,}")
_PLAIN: Final = re.compile(rb"(?:/[0-9A-Za-z_~!$&'()*+,;=:@-][0-9A-Za-z._~!$&'()*+,;=:@-]*)*/?(?:\?[!-~]*)?")
"""Paths of which there is nothing to bring to another spelling: most."""


def normalize(untrusted: bytes) -> bytes | None:
    """The request target `untrusted`, which begins with a slash, in one spelling; None for one that has none:
    a fragment, a NUL, a percent sign without two digits. The query stays as it is."""
    if b"#" not in untrusted and _PLAIN.fullmatch(untrusted):
        return untrusted
    if not _TARGET.fullmatch(untrusted) or b"#" in untrusted:
        return None
    path, mark, query = untrusted.partition(b"?")
    if len(_ENCODED.findall(path)) != path.count(b"%") or b"%00" in path:
        return None
    path = _ENCODED.sub(_decoded, path.replace(b"\\", b"/"))
    if not path.startswith(b"/"):
        return None
    return _without_dots(path) + mark + query


def merge_slashes(path: bytes) -> bytes:
    """A path in one spelling, with one slash wherever there are several."""
    if b"//" not in path:
        return path
    path, mark, query = path.partition(b"?")
    return _SLASHES.sub(b"/", path) + mark + query


def decode_and_merge_slashes(path: bytes) -> bytes:
    """A path in one spelling, with `%2F` and `%5C` as the slashes that they stand for, merged."""
    if b"%2F" in path or b"%5C" in path:
        path, mark, query = path.partition(b"?")
        decoded = normalize(path.replace(b"%2F", b"/").replace(b"%5C", b"/"))
        assert decoded is not None  # it was in one spelling, and has got nothing but slashes
        path = decoded + mark + query
    return merge_slashes(path)


Respell = Callable[[bytes], bytes]

SPELLINGS: Final[Mapping[str, Respell | None]] = {
    "DEFAULT": None,
    "NONE": None,
    "BASE": None,
    "MERGE_SLASHES": merge_slashes,
    "DECODE_AND_MERGE_SLASHES": decode_and_merge_slashes,
}
"""What is done with a path beyond `normalize`, by Istio's names. Less than BASE is never done."""


class Spelling:
    """What is done with paths at present.

    Attributes:
        respell: beyond `normalize`; None: nothing.
    """

    __slots__ = ("respell",)

    def __init__(self, respell: Respell | None = None) -> None:
        self.respell = respell


def _decoded(found: re.Match[bytes]) -> bytes:
    """An unreserved character as it is, any other in capital digits."""
    octet = int(found[1], 16)
    return bytes((octet,)) if octet in _UNRESERVED else b"%" + found[1].upper()


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4, empty segments kept."""
    kept: list[bytes] = []
    parts = path.split(b"/")[1:]
    for part in parts:
        if part == b"..":
            if kept:
                kept.pop()
        elif part != b".":
            kept.append(part)
    if parts[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
