"""Sets of files for a plug-in CA: a good one, and the same with one thing changed."""

from __future__ import annotations

from dataclasses import dataclass

from tests.identity.builders import Authority, pem_of
from ztunnel.identity.plugged_in import CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT


@dataclass(frozen=True)
class Set:
    """A root and, down to the one that signs, its intermediates."""

    root: Authority
    steps: tuple[Authority, ...]

    @property
    def signer(self) -> Authority:
        return (self.root, *self.steps)[-1]

    def files(self, **changes: str | None) -> dict[str, bytes]:
        """As Istio's Makefile writes them: the chain goes from the CA certificate to the root."""
        chain = "".join(one.pem for one in (*reversed(self.steps), self.root))
        found: dict[str, str | None] = {
            CA_CERT: self.signer.pem,
            CA_KEY: pem_of(self.signer.key),
            CERT_CHAIN: chain,
            ROOT_CERT: self.root.pem,
        }
        for name, text in changes.items():
            found[name.replace("_", "-") + ".pem"] = text
        return {name: text.encode() for name, text in found.items() if text is not None}


def one_step(root: Authority | None = None, **options: object) -> Set:
    root = root or Authority.root()
    return Set(root, (root.child(**options),))  # type: ignore[arg-type]
