import json
from base64 import urlsafe_b64decode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ztunnel.demo.bookinfo.issuer import Issuer


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text: str) -> int:
    return int.from_bytes(decoded(text), "big")


def test_a_token_says_who_until_when_and_is_signed_by_the_key_that_is_told() -> None:
    issuer = Issuer("https://i")
    head, claims, signature = issuer.token("jason", 1_800_000_000.9).split(".")
    assert json.loads(decoded(claims)) == {"iss": "https://i", "sub": "jason", "exp": 1_800_000_000}
    (key,) = json.loads(issuer.jwks())["keys"]
    assert (key["alg"], key["kid"]) == ("ES256", json.loads(decoded(head))["kid"])
    octets = decoded(signature)
    assert len(octets) == 64
    signed = encode_dss_signature(int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:], "big"))
    public = ec.EllipticCurvePublicNumbers(number(key["x"]), number(key["y"]), ec.SECP256R1()).public_key()
    public.verify(signed, f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))


def test_each_has_a_key_of_its_own() -> None:
    assert Issuer("a").jwks() != Issuer("a").jwks()
