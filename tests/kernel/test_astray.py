"""Programs of others that rewrite calls, before ours and after ours: nothing leaves the mesh unjudged."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kernel.lab import Kernel, Lab, endpoint, local_of, original, wait_until
from tests.kernel.rewriting import rewrite
from ztunnel.redirect.layout import Direct

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

PLACES = {4: ("10.96.0.50", "10.77.0.3", "10.77.0.2"), 6: ("fd96::50", "fd77::3", "fd77::2")}
"""A service, a server in pod b, the caller's own address in pod a."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def cgroup(lab: Lab, stack: ExitStack) -> int:
    fd = os.open(lab.root, os.O_RDONLY)
    stack.callback(os.close, fd)
    return fd


@pytest.mark.parametrize("version", PLACES)
def test_before_ours_the_mesh_captures_what_the_other_has_made_of_it(
    lab: Lab, stack: ExitStack, cgroup: int, version: int
) -> None:
    service, server, _ = PLACES[version]
    rewrite(stack, cgroup, endpoint(service, 80), endpoint(server, 8080))
    with Kernel(lab) as kernel:
        pod = kernel.enroll("a")
        proxy = kernel.proxy("a")
        kernel.connect(lab.a, service, 80)
        _, peer = kernel.accept(proxy)
        recalled = kernel.recall(pod.cookie, peer)
        assert recalled is not None
        assert recalled.destination == original(server, 8080)


@pytest.mark.parametrize("version", PLACES)
@pytest.mark.parametrize("deferred", [False, True])
def test_after_ours_what_it_sends_elsewhere_never_leaves(
    lab: Lab, stack: ExitStack, cgroup: int, version: int, deferred: bool
) -> None:
    service, server, _ = PLACES[version]
    with Kernel(lab) as kernel:
        if deferred:
            kernel.redirection.held.hold(1)
        kernel.redirection.renew_lease(time.monotonic_ns())
        rewrite(stack, cgroup, None, endpoint(server, 8080))
        kernel.enroll("a")
        proxy = kernel.proxy("a")
        app = kernel.listen(lab.b, 8080)
        app.setblocking(False)
        client = kernel.socket(lab.a, service)
        client.settimeout(1.5)  # its SYN is sent twice
        with pytest.raises(TimeoutError):
            client.connect((service, 80))
        for listener in (app, proxy):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
        assert kernel.count("intent_mismatch") == 1
        client.close()


@pytest.mark.parametrize("version", PLACES)
def test_a_direct_flow_that_is_sent_elsewhere_does_not_leave_either(
    lab: Lab, stack: ExitStack, cgroup: int, version: int
) -> None:
    _, server, _ = PLACES[version]
    with Kernel(lab) as kernel:
        near, far = kernel.enroll("a"), kernel.enroll("b")
        kernel.redirection.renew_lease(time.monotonic_ns())
        verdict = Direct(
            far.cookie, kernel.redirection.generation(near.cookie), kernel.redirection.generation(far.cookie)
        )
        kernel.redirection.teach(near.cookie, endpoint(server, 8080), verdict)
        app = kernel.listen(lab.b, 8080)
        client = kernel.connect(lab.a, server, 8080)
        assert kernel.accept(app)[1] == local_of(client)
        rewrite(stack, cgroup, endpoint(server, 8080), endpoint(server, 9090))
        other = kernel.listen(lab.b, 9090)
        other.setblocking(False)
        again = kernel.socket(lab.a, server)
        again.settimeout(0.5)
        with pytest.raises(TimeoutError):
            again.connect((server, 8080))
        with pytest.raises(BlockingIOError):
            other.accept()
        assert kernel.count("intent_mismatch") == 1


@pytest.mark.parametrize("version", PLACES)
def test_what_is_not_enrolled_is_rewritten_as_before(
    lab: Lab, stack: ExitStack, cgroup: int, version: int
) -> None:
    service, server, _ = PLACES[version]
    with Kernel(lab) as kernel:
        rewrite(stack, cgroup, endpoint(service, 80), endpoint(server, 8080))
        app = kernel.listen(lab.b, 8080)
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        assert kernel.connect(lab.a, service, 80).family == family
        assert wait_until(lambda: kernel.accept(app))
        assert kernel.count("intent_mismatch") == 0
