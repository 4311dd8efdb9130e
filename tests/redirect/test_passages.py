from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.redirect.test_layout import endpoints, ips, numbers, ports
from ztunnel.model.address import Endpoint, pack16
from ztunnel.redirect.passages import (
    FORWARDED,
    INTERFACE,
    PASSAGE,
    Forwarded,
    pull_forwarded,
    push_interface,
    push_passage,
)

small = st.integers(0, 2**32 - 1)


whole = st.binary(max_size=120)
flags = [st.booleans()] * 3


@given(st.builds(Forwarded, numbers, numbers, *[endpoints] * 4, small, small, *flags, small, whole))
def test_what_the_kernel_tells_comes_back(seen: Forwarded) -> None:
    ends = []
    for source, destination in ((seen.opener, seen.called), (seen.source, seen.destination)):
        ends += [pack16(source.ip), pack16(destination.ip), source.port, destination.port]
    rest = seen.syn, seen.inwards, seen.reply, len(seen.whole), seen.interface, seen.whole
    packed = FORWARDED.pack(seen.time_ns, seen.cookie, *ends, seen.sequence, seen.acknowledged, *rest)
    assert pull_forwarded(packed) == seen


@given(numbers, ips, ips, ports)
def test_a_passage_names_the_pod_the_opener_and_what_it_calls(cookie, source, called, port) -> None:
    packed = push_passage(cookie, source, Endpoint(called, port))
    assert PASSAGE.unpack(packed) == (cookie, pack16(source), pack16(called), port)


@given(numbers, small)
def test_an_interface_is_one_of_a_namespace(cookie, index) -> None:
    assert INTERFACE.unpack(push_interface(cookie, index)) == (cookie, index)
