"""Name servers of a resolv.conf."""

from __future__ import annotations

import pytest

from ztunnel.zds.resolver import parse_name_servers


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", []),
        ("search a.svc b\nnameserver 10.96.0.10\noptions ndots:5\n", ["10.96.0.10:53"]),
        ("nameserver\t10.0.0.1 \nnameserver fd00::a\n", ["10.0.0.1:53", "[fd00::a]:53"]),
        ("# nameserver 1.1.1.1\n;nameserver 2.2.2.2\nnameserver 3.3.3.3 # local\n", ["3.3.3.3:53"]),
        ("nameserver\nnameserver x\nnameserver fe80::1%eth0\nnameserver 9.9.9.9\n", ["9.9.9.9:53"]),
        (
            "".join(f"nameserver 10.0.0.{n}\n" for n in range(1, 6)),
            ["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"],
        ),
    ],
)
def test_the_servers_are_those_that_libc_would_ask(text: str, servers: list[str]) -> None:
    assert list(map(str, parse_name_servers(text))) == servers
