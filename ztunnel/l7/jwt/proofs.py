"""What is known of tokens: which of them are proved by which keys. Each is proved once and kept for a while.

Good and bad ones are kept apart: whoever sends bad ones without end costs others nothing of what is kept for
them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from ztunnel.l7.jwt.algorithm import has_signed
from ztunnel.l7.jwt.jwks import KeySet
from ztunnel.l7.jwt.token import Token, Wrong

MAX_PROVED: Final = 4096
MAX_PROVED_BYTES: Final = 8 * 2**20
"""Of the tokens' texts; their claims take a few times that."""
MAX_REFUTED: Final = 512

MAX_TRIED: Final = 8
"""Keys that a token without a `kid` may be by: of more, the first are tried."""

_Id = tuple[bytes, bytes]


class Proofs:
    """The least recently used are forgotten first.

    Attributes:
        proved, refuted: signatures that were checked, by what came of it.
        remembered: checks that were not needed.
    """

    def __init__(self, most: int = MAX_PROVED) -> None:
        """`most` good ones are kept."""
        self._most = most
        self._proved: OrderedDict[_Id, Token] = OrderedDict()
        self._refuted: OrderedDict[_Id, Wrong] = OrderedDict()
        self._bytes = 0
        self.proved = 0
        self.refuted = 0
        self.remembered = 0

    def __len__(self) -> int:
        return len(self._proved)

    def find(self, keys: KeySet, untrusted: bytes) -> Token | Wrong | None:
        """The token, where it is proved by these keys; what is wrong with it; None where it is not known."""
        known = keys.digest, untrusted
        token = self._proved.get(known)
        if token is not None:
            self._proved.move_to_end(known)
            self.remembered += 1
            return token
        wrong = self._refuted.get(known)
        if wrong is not None:
            self._refuted.move_to_end(known)
            self.remembered += 1
        return wrong

    def check(self, keys: KeySet, untrusted: Token) -> None:
        """Check the signature, and keep what comes of it. Takes 0.03 to 1 ms for each key it may be by."""
        wrong, known = prove(keys, untrusted), (keys.digest, untrusted.text)
        if wrong is None:
            self.proved += 1
            if known not in self._proved:
                self._bytes += len(untrusted.text)
            self._proved[known] = untrusted
            while len(self._proved) > self._most or self._bytes > MAX_PROVED_BYTES:
                self._bytes -= len(self._proved.popitem(last=False)[0][1])
        else:
            self.refuted += 1
            self._refuted[known] = wrong
            if len(self._refuted) > MAX_REFUTED:
                self._refuted.popitem(last=False)

    def forget(self, keys: KeySet, token: Token) -> None:
        """It is no longer valid."""
        if self._proved.pop((keys.digest, token.text), None) is not None:
            self._bytes -= len(token.text)


def prove(keys: KeySet, untrusted: Token) -> Wrong | None:
    """None where one of these keys has signed it; otherwise what is wrong. A key is another one where both
    have a `kid` (Envoy's jwt_verify_lib, verifyJwtWithoutTimeChecking)."""
    tried = 0
    for key in keys.keys:
        if untrusted.kid and key.kid and key.kid != untrusted.kid:
            continue
        if untrusted.algorithm not in key.algorithms:
            continue
        tried += 1
        if has_signed(key.public, untrusted.algorithm, untrusted.signature, untrusted.signed):
            return None
        if tried == MAX_TRIED:
            break
    if not keys.keys:
        return Wrong.NO_KEYS
    return Wrong.UNPROVED if tried else Wrong.NO_KEY
