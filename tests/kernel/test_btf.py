"""What a kernel says of its structs, by a description made here and by that of the kernel that runs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ztunnel.kernel.btf import RUNNING_KERNEL, multipath_offset, offsets_of, sock_offsets

KIND_INT, KIND_STRUCT = 1, 4


class Description:
    """Builds BTF: an integer type, then structs."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = struct.pack("=IIII", self.name("int"), KIND_INT << 24, 4, 32)

    def name(self, text: str) -> int:
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def struct(
        self, name: str, size: int, *members: tuple[str, int], bit_fields: bool = False
    ) -> Description:
        """Members are (name, offset in bits); with `bit_fields` the kernel's other form of offsets is
        used."""
        head = KIND_STRUCT << 24 | len(members) | bit_fields << 31
        self.types += struct.pack("=III", self.name(name), head, size)
        for member, bits in members:
            self.types += struct.pack("=III", self.name(member) if member else 0, 1, bits)
        return self

    def render(self) -> bytes:
        sizes = 0, len(self.types), len(self.types), len(self.strings)
        return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, *sizes) + self.types + self.strings


def test_a_member_is_where_the_kernel_says() -> None:
    blob = Description().struct("other", 8, ("b", 0)).struct("it", 16, ("a", 0), ("", 32), ("b", 64)).render()
    assert offsets_of(blob, "it", ("a", "b")) == [0, 8]
    assert offsets_of(blob, "it", ("a", "c")) is None
    assert offsets_of(blob, "nothing", ("a",)) is None


def test_bit_fields_have_no_offset_in_bytes() -> None:
    blob = Description().struct("it", 16, ("a", 1 << 24 | 7), ("b", 64), bit_fields=True).render()
    assert offsets_of(blob, "it", ("b",)) == [8]
    assert offsets_of(blob, "it", ("a",)) is None


def test_a_number_that_looks_like_the_name_is_no_struct() -> None:
    description = Description()
    description.struct("first", 1 << 20, ("x", 0))
    # The size of the next one is the name of "it": what follows looks like a struct without its members.
    at = len(description.strings) + len("next\0")
    description.struct("next", at, ("y", 0)).struct("it", 8, ("a", 32))
    assert offsets_of(description.render(), "it", ("a",)) == [4]


@pytest.mark.parametrize("blob", [b"", b"\0" * 8, b"\0" * 64, b"\x9f\xeb\1\0" + b"\xff" * 20])
def test_what_is_no_description_tells_nothing(blob: bytes, tmp_path: Path) -> None:
    place = tmp_path / "vmlinux"
    place.write_bytes(blob)
    for offsets in (sock_offsets, multipath_offset):
        assert offsets(place) is None
        assert offsets(tmp_path / "none") is None


def test_a_kernel_without_multipath_tcp_has_no_place_for_it(tmp_path: Path) -> None:
    place = tmp_path / "vmlinux"
    place.write_bytes(Description().struct("tcp_sock", 8, ("other", 0)).render())
    assert multipath_offset(place) is None
    place.write_bytes(Description().struct("tcp_sock", 8, ("other", 0), ("is_mptcp", 32)).render())
    assert multipath_offset(place) == 4


def test_the_running_kernel_tells_where_a_socket_keeps_its_error() -> None:
    """tests/kernel/test_outside.py shows that they are right."""
    assert RUNNING_KERNEL.exists(), (
        "this kernel has no BTF: reports of calls that leave the mesh are less exact"
    )
    found = sock_offsets()
    assert found is not None
    assert all(offset > 0 for offset in found)
