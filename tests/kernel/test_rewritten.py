"""What a load balancer on the connect hooks makes of a call is seen, whatever it tells the application."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.lab import Lab, endpoint
from tests.kernel.rewriting import rewrite
from ztunnel.kernel.rewritten import call_seen, parse_remote

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

VIPS = {4: ("192.0.2.1", "10.77.0.99"), 6: ("2001:db8::1", "fd77::99")}
"""A service, and an endpoint that does not answer at once."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.mark.parametrize("version", VIPS)
def test_a_call_that_is_left_alone_goes_where_it_was_made_to(lab: Lab, version: int) -> None:
    asked = endpoint(VIPS[version][0], 443)
    with lab.a.entered():
        assert call_seen(asked) == asked


@pytest.mark.parametrize("version", VIPS)
def test_one_that_was_rewritten_goes_elsewhere(lab: Lab, stack: ExitStack, version: int) -> None:
    vip, backend = VIPS[version]
    fd = os.open(lab.root, os.O_RDONLY)
    stack.callback(os.close, fd)
    rewrite(stack, fd, endpoint(vip, 443), endpoint(backend, 6443))
    with lab.a.entered():
        assert call_seen(endpoint(vip, 443)) == endpoint(backend, 6443)
        assert call_seen(endpoint(vip, 80)) == endpoint(vip, 80)


def test_one_that_cannot_be_made_is_not_seen(lab: Lab) -> None:
    with lab.a.entered():
        assert call_seen(endpoint("255.255.255.255", 1)) is None


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("0100007F:01BB", "127.0.0.1", 443),
        ("0A60000A:1F90", "10.0.96.10", 8080),
        ("B80D0120000000000000000001000000:0050", "2001:db8::1", 80),
    ],
)
def test_the_kernels_text_of_an_address(text: str, host: str, port: int) -> None:
    assert parse_remote(text) == endpoint(host, port)
