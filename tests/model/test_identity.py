"""SPIFFE IDs, exactly: the cases of go-spiffe's spiffeid/id_test.go, and every byte in every place."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.identity import SpiffeId, parse_spiffe_id

DOMAIN = string.ascii_lowercase + string.digits + "._-"
SEGMENT = string.ascii_letters + string.digits + "._-"
EVERY_CHARACTER = [chr(number) for number in range(256)]

segments = st.text(alphabet=SEGMENT, min_size=1, max_size=63).filter(lambda text: text not in (".", ".."))
identities = st.builds(SpiffeId, st.text(alphabet=DOMAIN, min_size=1, max_size=63), segments, segments)


def is_accepted(untrusted: str) -> bool:
    try:
        parse_spiffe_id(untrusted)
    except PeerError:
        return False
    return True


@given(identities)
def test_an_identity_survives_its_text(identity: SpiffeId) -> None:
    assert parse_spiffe_id(str(identity)) == identity
    assert str(identity) == f"spiffe://{identity.principal}"


@given(st.one_of(st.text(max_size=100), st.text(alphabet=SEGMENT + "/:@%?#", max_size=60)))
def test_garbage_is_a_peers_error(rest: str) -> None:
    for untrusted in (rest, f"spiffe://{rest}", f"spiffe://td/ns/{rest}", f"spiffe://td/ns/n/sa/{rest}"):
        if is_accepted(untrusted):
            assert str(parse_spiffe_id(untrusted)) == untrusted


@pytest.mark.parametrize("place", ["trust domain", "namespace", "account"])
def test_exactly_the_specifications_characters_are_accepted(place: str) -> None:
    template, allowed = {
        "trust domain": ("spiffe://a{}b/ns/n/sa/s", DOMAIN),
        "namespace": ("spiffe://td/ns/a{}b/sa/s", SEGMENT),
        "account": ("spiffe://td/ns/n/sa/a{}b", SEGMENT),
    }[place]
    accepted = {each for each in EVERY_CHARACTER if is_accepted(template.format(each))}
    assert accepted == set(allowed)


@pytest.mark.parametrize(
    "untrusted",
    [
        "",
        "spiffe:",
        "spiffe:/",
        "spiffe://",
        "spiffe:///",
        "spiffe:/td/ns/n/sa/s",
        "Spiffe://td/ns/n/sa/s",
        "SPIFFE://td/ns/n/sa/s",
        "http://td/ns/n/sa/s",
        "td/ns/n/sa/s",
        " spiffe://td/ns/n/sa/s",
        "spiffe://td/ns/n/sa/s ",
        "spiffe://td/ns/n/sa/s\n",
        "spiffe://td/ns/n/sa/s\0",
        "spiffe://td",
        "spiffe://td/",
        "spiffe://td/ns/n/sa/s/",
        "spiffe://td//ns/n/sa/s",
        "spiffe://td/ns//sa/s",
        "spiffe://td/ns/n/sa/",
        "spiffe:///ns/n/sa/s",
        "spiffe://td/ns/n/sa/s/x",
        "spiffe://td/ns/n/SA/s",
        "spiffe://td/sa/s/ns/n",
        "spiffe://td/ns/./sa/s",
        "spiffe://td/ns/../sa/s",
        "spiffe://td/ns/n/sa/.",
        "spiffe://td/ns/n/sa/..",
        "spiffe://td/ns/n/sa/%61",
        "spiffe://t%64/ns/n/sa/s",
        "spiffe://TD/ns/n/sa/s",
        "spiffe://user@td/ns/n/sa/s",
        "spiffe://user:pass@td/ns/n/sa/s",
        "spiffe://td:443/ns/n/sa/s",
        "spiffe://td/ns/n/sa/s?query",
        "spiffe://td/ns/n/sa/s#fragment",
        "spiffe://[::1]/ns/n/sa/s",
        "spiffe://tä/ns/n/sa/s",
        "spiffe://td/ns/n/sa/ſ",
    ],
)
def test_it_is_no_identity(untrusted: str) -> None:
    with pytest.raises(PeerError):
        parse_spiffe_id(untrusted)


@pytest.mark.parametrize("name", ["...", ".a", "a.", "..a", "_", "-", "a..b"])
def test_dots_are_names_where_they_are_no_path(name: str) -> None:
    assert is_accepted(f"spiffe://td/ns/{name}/sa/{name}")


def test_lengths_are_bounded() -> None:
    assert is_accepted(f"spiffe://{'a' * 255}/ns/n/sa/s")
    assert not is_accepted(f"spiffe://{'a' * 256}/ns/n/sa/s")
    assert is_accepted(f"spiffe://td/ns/n/sa/{'a' * 253}")
    assert not is_accepted(f"spiffe://td/ns/n/sa/{'a' * 254}")
    assert not is_accepted(f"spiffe://td/ns/{'a' * 2048}/sa/s")


def test_what_is_wrong_is_shown_in_part_only() -> None:
    with pytest.raises(PeerError) as refusal:
        parse_spiffe_id("spiffe://td/ns/n/sa/" + "%" * 2000)
    assert len(str(refusal.value)) < 200
