"""Many entries in one system call, on real maps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ztunnel.kernel.batch import clear, items, put_all
from ztunnel.kernel.bpf import Map, MapSpec, map_create

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

HASH, LRU_HASH, RINGBUF, NO_PREALLOC = 1, 9, 27, 1
MANY = 10_000
"""More than two system calls' worth."""


@pytest.fixture(params=[(HASH, NO_PREALLOC), (LRU_HASH, 0)], ids=["hash", "lru"])
def hashed(request: pytest.FixtureRequest) -> Iterator[Map]:
    kind, flags = request.param
    with Map(map_create("batch", MapSpec(kind, 8, 4, 4 * MANY, flags))) as hashed:
        yield hashed


def keys(count: int) -> list[bytes]:
    return [number.to_bytes(8, "little") for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, MANY])
def test_all_are_put_listed_and_cleared(hashed: Map, count: int) -> None:
    put_all(hashed, keys(count), b"abcd")
    found = items(hashed)
    assert dict(found) == dict.fromkeys(keys(count), b"abcd")
    assert len(found) == count
    clear(hashed)
    assert items(hashed) == []
    assert list(hashed) == []


def test_what_is_there_gets_the_new_value(hashed: Map) -> None:
    put_all(hashed, keys(10), b"old!")
    hashed.put(keys(20)[15], b"kept")
    put_all(hashed, keys(10)[5:], b"new!")
    found = dict(items(hashed))
    assert [found[key] for key in keys(10)] == [b"old!"] * 5 + [b"new!"] * 5
    assert found[keys(20)[15]] == b"kept"


def test_where_there_is_no_room_it_is_said() -> None:
    with Map(map_create("batch", MapSpec(HASH, 8, 4, 100, NO_PREALLOC))) as hashed:
        put_all(hashed, keys(100), b"abcd")
        with pytest.raises(OSError, match="Argument list too long"):
            put_all(hashed, keys(101), b"abcd")
        clear(hashed)
        put_all(hashed, keys(100), b"abcd")


def test_what_is_no_hash_cannot_be_listed() -> None:
    with (
        Map(map_create("batch", MapSpec(RINGBUF, 0, 0, 4096, 0))) as ring,
        pytest.raises(OSError, match="cannot be listed"),
    ):
        items(ring)
