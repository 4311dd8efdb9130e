"""Signatures by every algorithm, and forgeries that some libraries took for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.issuers import ALGORITHMS, CURVES, key_of, signature
from ztunnel.l7.jwt.algorithm import has_signed

MESSAGE = b"header.payload"


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "Ed448"])
def test_a_signature_is_known(algorithm: str) -> None:
    private = key_of(algorithm)
    made = signature(algorithm, private, MESSAGE)
    assert has_signed(private.public_key(), algorithm, made, MESSAGE)
    assert not has_signed(private.public_key(), algorithm, made, MESSAGE + b"x")
    assert not has_signed(key_of(algorithm, "other").public_key(), algorithm, made, MESSAGE)


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "Ed448"])
@pytest.mark.parametrize("forged", [b"", b"\0", b"\0" * 64, b"\0" * 132, b"\xff" * 256, b"x" * 100_000])
def test_no_constant_is_a_signature(algorithm: str, forged: bytes) -> None:
    """CVE-2022-21449 (r = s = 0), and signatures of no length or any."""
    assert not has_signed(key_of(algorithm).public_key(), algorithm, forged, MESSAGE)


@pytest.mark.parametrize("algorithm", CURVES)
def test_ecdsa_takes_no_number_that_is_none_of_its_curve(algorithm: str) -> None:
    size = (CURVES[algorithm][1].key_size + 7) // 8
    order = {
        "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        "ES384": int("f" * 48 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
        "ES512": int(
            "1" + "f" * 65 + "a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16
        ),
    }[algorithm]
    public = key_of(algorithm).public_key()
    for r, s in ((0, 1), (1, 0), (order, 1), (1, order), (order, order)):
        forged = r.to_bytes(size, "big") + s.to_bytes(size, "big")
        assert not has_signed(public, algorithm, forged, MESSAGE)


def test_a_signature_in_der_is_none() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    private = key_of("ES256")
    assert not has_signed(private.public_key(), "ES256", private.sign(MESSAGE, ec.ECDSA(SHA256())), MESSAGE)


@pytest.mark.parametrize(("made", "asked"), [("RS256", "PS256"), ("PS256", "RS256"), ("RS256", "RS384")])
def test_one_algorithm_is_not_another_of_the_same_key(made: str, asked: str) -> None:
    private = key_of(made)
    assert not has_signed(private.public_key(), asked, signature(made, private, MESSAGE), MESSAGE)


def test_the_salt_of_pss_is_as_long_as_the_hash() -> None:
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256

    private, scheme = key_of("PS256"), padding.PSS(padding.MGF1(SHA256()), 0)
    assert not has_signed(private.public_key(), "PS256", private.sign(MESSAGE, scheme, SHA256()), MESSAGE)


@given(st.sampled_from(("ES256", "EdDSA")), st.data())
def test_no_bit_may_change(algorithm: str, data: st.DataObject) -> None:
    private = key_of(algorithm)
    made = bytearray(signature(algorithm, private, MESSAGE))
    bit = data.draw(st.integers(0, 8 * len(made) - 1))
    made[bit // 8] ^= 1 << bit % 8
    assert not has_signed(private.public_key(), algorithm, bytes(made), MESSAGE)
