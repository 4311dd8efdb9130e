"""What pinned maps hold goes over to maps of another layout, while both are used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.lab import PINS, unique
from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import Map, MapSpec
from ztunnel.redirect.carry import KeptMaps, differ

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

HASH, SOCKHASH = 1, 18
SMALL, GROWN, SHRUNK = MapSpec(HASH, 4, 8, 16, 0), MapSpec(HASH, 4, 16, 16, 0), MapSpec(HASH, 4, 4, 16, 0)
OTHER_KEY = MapSpec(HASH, 8, 8, 16, 0)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for pins."""
    made = PINS / unique()
    made.mkdir(parents=True)
    yield made
    for each in made.iterdir():
        each.unlink()
    made.rmdir()


def pinned(place: Path, name: str, spec: MapSpec, entries: dict[bytes, bytes]) -> Map:
    made = Map(bpf.map_create(name, spec))
    for key, value in entries.items():
        made.put(key, value)
    bpf.set_pinned(made.fd, place / name)
    return made


def entries(opened: Map) -> dict[bytes, bytes | None]:
    return {key: opened.get(key) for key in opened}


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("spec", "value"), [(SMALL, b"abcdefgh"), (GROWN, b"abcdefgh" + bytes(8)), (SHRUNK, b"abcd")]
)
def test_entries_are_copied_as_far_as_they_fit(place: Path, spec: MapSpec, value: bytes) -> None:
    with pinned(place, "vips", SMALL, {key(1): b"abcdefgh"}) as old:
        kept = KeptMaps(place, {"vips": spec})
        assert kept.differ == (spec != SMALL) == differ(place, {"vips": spec})
        kept.carry_over()
        assert entries(kept.opened["vips"]) == {key(1): value}
        with Map(bpf.open_pinned(place / "vips")) as still:
            assert still.spec == old.spec  # nothing is changed yet
        kept.pin()
        kept.close()
        with Map(bpf.open_pinned(place / "vips")) as now:
            assert (now.spec, entries(now)) == (spec, {key(1): value})


def test_what_comes_meanwhile_follows_and_what_was_changed_since_stays(place: Path) -> None:
    with pinned(place, "intents", SMALL, {key(1): b"a" * 8, key(2): b"b" * 8}) as old:
        kept = KeptMaps(place, {"intents": GROWN})
        fresh = kept.opened["intents"]
        kept.carry_over()
        kept.pin()
        old.put(key(3), b"c" * 8)  # by a program that was about to end
        fresh.put(key(1), b"x" * 16)  # by one that has begun
        fresh.drop(key(2))
        fresh.put(key(4), b"y" * 16)
        old.put(key(4), b"d" * 8)
        kept.carry_over()
        assert entries(fresh) == {key(1): b"x" * 16, key(3): b"c" * 8 + bytes(8), key(4): b"y" * 16}
        kept.close()


def test_a_map_of_the_same_layout_is_the_same_map(place: Path) -> None:
    with pinned(place, "vips", SMALL, {key(1): b"abcdefgh"}) as old:
        kept = KeptMaps(place, {"vips": SMALL, "new": GROWN})
        assert bpf.object_id(kept.opened["vips"].fd) == bpf.object_id(old.fd)
        assert kept.descriptors.keys() == {"vips", "new"}
        assert entries(kept.opened["new"]) == {}
        assert not differ(place, {"vips": SMALL, "new": GROWN})
        kept.close()


def test_where_keys_are_others_the_map_is_empty(place: Path) -> None:
    with pinned(place, "callers", SMALL, {key(1): b"abcdefgh"}):
        kept = KeptMaps(place, {"callers": OTHER_KEY})
        kept.carry_over()
        assert entries(kept.opened["callers"]) == {}
        kept.close()


@pytest.mark.parametrize("name", ["enrolled", "owners"])
def test_who_is_in_the_mesh_is_never_lost(place: Path, name: str) -> None:
    with pinned(place, name, SMALL, {key(1): b"abcdefgh"}) as old:
        with pytest.raises(Unsupported, match=f"keeps {name} in another way .*ztunnel detach"):
            KeptMaps(place, {"vips": SMALL, name: OTHER_KEY})
        with Map(bpf.open_pinned(place / name)) as still:
            assert bpf.object_id(still.fd) == bpf.object_id(old.fd)
        KeptMaps(place, {name: GROWN}).close()
