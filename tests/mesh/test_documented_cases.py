"""What Istio's documentation and the Gateway API's conformance tests show of routing is what a waypoint does:
the tables of tests/documented, and every field of a DestinationRule, asked through real processes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from ipaddress import ip_address
from itertools import count
from typing import Any

import pytest

from tests.documented.cases import BACKENDS, Case, Outcome, Table, check, check_shares, tables
from tests.mesh.answering import Answered, Greeter, Http1, Http2, Mute, Server, addresses
from tests.mesh.destination_rules import (
    CHECKS,
    HOMES,
    KNOWN_LATER,
    NODES,
    POLICIES,
    RULES,
    WARM_SECONDS,
    Shop,
    knows,
)
from tests.mesh.lab import TCP_FAMILIES, Family, Mesh, namespace, pod, read_all, wait_until
from tests.mesh.test_waypoint import GATEWAY, Waypoint, signed
from ztunnel.demo.call import get

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

TABLES = list(tables())
VERSIONS = {"shop/one": "v1", "shop/two": "v2", "shop/three": "v3", "far/three": "v3"}
MANY = 40
"""Requests of which a share is told."""

AT_ONCE = 8
"""Tables."""


def server_pod(where: str, version: str) -> str:
    warm = "" if version == "v3" else ", warm: up"
    made = pod(where, HOMES[version], labels=f"role: server, version: {version}{warm}")
    name = where.partition("/")[2]
    own = made.replace(f"app: {name},", "app: server,") if name != "late" else made
    return own.replace("ports: [{name: http, containerPort: 8080}]", "command: [sleep, infinity]")


MANIFESTS = (
    NODES
    + namespace("shop")
    + pod("shop/caller", "node-1")
    + GATEWAY
    + "".join(server_pod(where, version) for where, version in VERSIONS.items() if where.startswith("shop/"))
    + pod("shop/deaf", "node-2")
    + BACKENDS
    + "".join(table.objects for table in TABLES)
    + RULES
)


@pytest.fixture
def answered(mesh: Mesh) -> Iterator[Answered]:
    """Servers in all pods."""
    made = Answered()
    with ExitStack() as stack:
        for where, version in VERSIONS.items():
            stack.enter_context(closing(Server(mesh.listen(where, port=8081), version, made)))
            stack.enter_context(closing(Greeter(mesh.listen(where, port=8083), version)))
        stack.enter_context(closing(Server(mesh.listen("shop/one", port=8085), "v1", made)))
        stack.enter_context(closing(Mute(mesh.listen("shop/one", port=8086))))
        stack.enter_context(closing(made))
        yield made


class Asking:
    """Cases asked by one family; `routes`: the names that the log has to have, by request."""

    _numbers = count(1)

    def __init__(self, mesh: Mesh, answered: Answered, family: Family) -> None:
        self._mesh, self._answered, self.family = mesh, answered, family
        self._clients: dict[tuple[str, int, bool], Http1 | Http2] = {}
        self.routes: dict[str, str] = {}
        self._addresses = addresses(mesh, family)
        for table in TABLES:
            for each in table.addresses:
                if isinstance(ip_address(each), family):
                    self._addresses[table.cases[0].service] = each

    def _client(self, case: Case) -> Http1 | Http2:
        key = case.service, case.port, case.is_grpc
        if key not in self._clients:
            address = self._addresses[case.service]
            self._clients[key] = (Http2 if case.is_grpc else Http1)(self._mesh, address, case.port)
        return self._clients[key]

    def _ask(self, case: Case) -> tuple[str, Outcome]:
        """What becomes of a request, but for what the log says and copies; and its number."""
        key = f"00000000-0000-4000-8000-{next(self._numbers):012d}"
        self._answered.fails[key], self._answered.waits[key] = case.fails, case.waits
        if case.limited:
            self._answered.limited.add(key)
        fields = {"x-request-id": key, **case.headers}
        if case.claims is not None:
            fields["authorization"] = f"Bearer {signed(**case.claims).decode()}"
        if case.route is not None:
            self.routes[key] = case.route
        began = time.monotonic()
        client = self._client(case)
        if isinstance(client, Http2):
            client.scheme = case.scheme
        reply = client.ask(case.method, case.path, case.host, fields)
        delay = time.monotonic() - began if case.delay else 0.0
        told: dict[str, Any] = reply.told or {"version": reply.fields.get("x-version", ""), "fields": {}}
        return key, Outcome(
            told["version"],
            reply.status,
            int(reply.fields.get("grpc-status", -1)),
            told["fields"],
            reply.fields,
            "" if told["version"] else reply.body.decode(),
            self._answered.tries[key],
            delay,
            (),
            case.route or "",
        )

    def _connect(self, case: Case) -> tuple[str, Outcome]:
        """Where a connection goes that speaks no HTTP."""
        call = self._mesh.call("shop/caller", self._addresses[case.service], case.port)
        version = "" if call.error is not None else read_all(call.sock).decode()
        return "", Outcome(version, 200 if version else 503)

    def expect(self, case: Case) -> None:
        """It becomes what the case says. Copies come when they do."""
        made = [(self._connect if case.tcp else self._ask)(case) for _ in range(MANY if case.is_share else 1)]

        def found() -> list[Outcome]:
            return [replace(one, copies=tuple(self._answered.copies[key])) for key, one in made]

        def holds() -> bool:
            try:
                self._check(case, found())
            except AssertionError:
                return False
            return True

        if any(case.copies.values()):
            with suppress(AssertionError):
                wait_until(holds, case.text, seconds=2)
        self._check(case, found())

    def _check(self, case: Case, found: list[Outcome]) -> None:
        for one in found:
            check(case, one)
        if case.is_share:
            check_shares(case, found)


def run(asking: Asking, table: Table, others: int) -> list[str]:
    """What has become otherwise than the table says. Each of the families asks for every second case."""
    wrong = []
    for number, case in enumerate(table.cases):
        if number % 2 == others:
            continue
        try:
            asking.expect(case)
        except (AssertionError, OSError) as error:
            wrong.append(f"{asking.family.__name__}: {error}")
    return wrong


def settled(asking: Asking, table: Table) -> bool:
    """Whether the waypoint, and who calls it, know of the table's objects."""
    (case, *_) = (one for one in table.cases if not (one.is_share or one.delay or one.waits))
    try:
        asking.expect(case)
    except (AssertionError, OSError):
        return False
    return True


def test_what_is_documented_is_done(mesh: Mesh, answered: Answered) -> None:
    waypoint = Waypoint(mesh)
    askings = [Asking(mesh, answered, family) for family in TCP_FAMILIES]
    for asking in askings:
        for table in TABLES:
            wait_until(lambda by=asking, table=table: settled(by, table), f"{table.name} is known")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [
            pool.submit(run, asking, table, number)
            for number, asking in enumerate(askings)
            for table in TABLES
        ]
        wrong = [text for each in running for text in each.result()]
    assert not wrong, "\n".join(wrong)
    expected = {key: route or "-" for asking in askings for key, route in asking.routes.items()}

    def named() -> dict[str, str]:
        return {line[13]: line[-1] for line in waypoint.lines() if line[13] in expected}

    with suppress(AssertionError):
        wait_until(lambda: named() == expected, "the log names what has decided")
    assert named() == expected
    assert waypoint.figures().total("ztunnel_internal_errors_total") == 0


def test_endpoints_are_asked_as_destination_rules_say(mesh: Mesh, answered: Answered) -> None:
    shop = Shop(mesh, answered)
    for name in [*POLICIES, "parts"]:
        if name not in KNOWN_LATER:
            wait_until(lambda name=name: knows(shop, name), f"{name} is known")
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        running = [pool.submit(check, shop) for check in CHECKS]
        wrong = [
            "".join(traceback.format_exception(error))
            for each in running
            if (error := each.exception()) is not None
        ]
    assert not wrong, "\n".join(wrong)
    assert shop.waypoint.figures().total("ztunnel_internal_errors_total") == 0


def test_an_endpoint_that_is_new_gets_less_at_first(
    mesh: Mesh, answered: Answered, applied: Callable[[str], None]
) -> None:
    """In turns with two that are warm: in its first second a third of a turn, later a whole one."""
    shop = Shop(mesh, answered)
    wait_until(lambda: knows(shop, "warm"), "it is known")
    warm_from = time.monotonic() + WARM_SECONDS
    applied(server_pod("shop/late", "v1").replace("role: server, version: v1", "version: late"))
    with closing(Server(mesh.listen("shop/late", port=8081), "late", answered)):
        wait_until(lambda: time.monotonic() > warm_from, "the others are warm")
        wait_until(lambda: "shop/late" in get(shop.waypoint.netns, 15000, "/config_dump")[1], "it is there")
        first = shop.versions("warm", 30).count("late")
        assert 1 <= first <= 7, first  # 30 / 7 and one more; of 30 / 3 where it gets as much as the others
        wait_until(lambda: shop.versions("warm", 30).count("late") in (9, 10, 11), "it gets its share")
