from __future__ import annotations

import os
import time

import pytest

from tests.kernel.lab import Kernel, Lab, endpoint
from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import Map, MapSpec
from ztunnel.kernel.compile import Compiled, Function, parse_compiled
from ztunnel.redirect import load
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.plan import Pins
from ztunnel.redirect.replace import clear, install, replace
from ztunnel.redirect.source import assemble, fingerprint

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture
def compiled(kernel: Kernel) -> Compiled:
    """What the laboratory runs."""
    flags = (*kernel.settings.compiler_flags(), *load.kernel_flags())
    print_ = fingerprint(assemble(load.read_sources()), flags)
    return parse_compiled((kernel.settings.cache / f"{print_}.json").read_text())


@pytest.fixture
def cgroup_fd(lab: Lab):
    fd = os.open(lab.root, os.O_RDONLY)
    yield fd
    os.close(fd)


def with_map(compiled: Compiled, name: str, spec: MapSpec) -> Compiled:
    return Compiled({**compiled.maps, name: spec}, compiled.functions)


def test_values_that_grow_keep_what_they_had(kernel: Kernel, compiled: Compiled, cgroup_fd) -> None:
    pod = kernel.enroll("a")
    old = compiled.maps["enrolled"]
    grown = MapSpec(old.kind, old.key_size, old.value_size + 8, old.max_entries, old.flags)
    replace(Pins(kernel.settings.pins), with_map(compiled, "enrolled", grown), cgroup_fd, "grown")
    with Redirection.open(kernel.settings.pins) as fresh:
        assert fresh._maps["enrolled"].get(pod.cookie.to_bytes(8, "little"))[old.value_size :] == bytes(8)


def test_maps_that_are_no_longer_used_lose_their_pin(kernel: Kernel, compiled: Compiled, cgroup_fd) -> None:
    more = with_map(compiled, "spare", MapSpec(1, 4, 4, 4, 0))
    replace(Pins(kernel.settings.pins), more, cgroup_fd, "more")
    assert (kernel.settings.pins / "maps/spare").exists()
    replace(Pins(kernel.settings.pins), compiled, cgroup_fd, "less")
    assert not (kernel.settings.pins / "maps/spare").exists()


def call_until_closed(kernel: Kernel, pipe: int) -> int:
    """An application that calls without a pause; 0 if each call was refused."""
    calls = 0
    while True:
        try:
            if os.read(pipe, 1) == b"":
                return 0 if calls > 10 else 2
        except BlockingIOError:
            pass
        with kernel.lab.a.socket(2, 1) as client:
            client.settimeout(1.0)
            try:
                client.connect(("10.77.0.3", 8080))
            except ConnectionRefusedError:
                calls += 1
            else:
                return 1


def test_no_call_escapes_while_programs_are_replaced(kernel: Kernel, compiled: Compiled, cgroup_fd) -> None:
    kernel.enroll("a")
    kernel.listen(kernel.lab.b, 8080)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    child = os.fork()
    if child == 0:
        os.close(writer)
        os._exit(call_until_closed(kernel, reader))
    os.close(reader)
    deadline = time.monotonic() + 1.0
    version = 0
    while time.monotonic() < deadline:
        version += 1
        replace(Pins(kernel.settings.pins), compiled, cgroup_fd, f"v{version}")
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert version > 3


def test_a_program_that_the_verifier_refuses_changes_nothing(
    kernel: Kernel, compiled: Compiled, cgroup_fd
) -> None:
    broken = Compiled(compiled.maps, {**compiled.functions, "connect6": Function("connect6", bytes(8), {})})
    pod = kernel.enroll("a")
    with pytest.raises(OSError, match="connect6"):
        replace(Pins(kernel.settings.pins), broken, cgroup_fd, "broken")
    proxy = kernel.proxy("a")
    kernel.connect(kernel.lab.a, "10.96.0.1", 80)
    _, peer = kernel.accept(proxy)
    assert kernel.recall(pod.cookie, peer) is not None


def test_an_installation_that_fails_leaves_nothing(lab: Lab, compiled: Compiled, cgroup_fd) -> None:
    pins = Pins(lab.settings().pins)
    broken = Compiled(compiled.maps, {**compiled.functions, "sk_lookup": Function("sk_lookup", bytes(8), {})})
    with pytest.raises(OSError, match="sk_lookup"):
        install(pins, broken, cgroup_fd, "broken")
    assert not pins.root.exists()
    assert not pins.under_construction().root.exists()


def test_what_a_crashed_installation_left_is_cleared(lab: Lab, compiled: Compiled, cgroup_fd) -> None:
    pins = Pins(lab.settings().pins)
    building = pins.under_construction()
    install(building, compiled, cgroup_fd, "half")
    try:
        install(pins, compiled, cgroup_fd, "whole")
        assert not building.root.exists()
        assert os.readlink(pins.version) == "whole"
    finally:
        clear(building)
        clear(pins)


def test_entries_survive_a_map_that_is_made_anew(kernel: Kernel, compiled: Compiled, cgroup_fd) -> None:
    kernel.redirection.serve_vip(endpoint("10.96.0.1", 80), [(endpoint("10.77.0.3", 8080), 1)])
    old = compiled.maps["vips"]
    larger = MapSpec(old.kind, old.key_size, old.value_size, old.max_entries * 2, old.flags)
    replace(Pins(kernel.settings.pins), with_map(compiled, "vips", larger), cgroup_fd, "larger")
    with Map(bpf.open_pinned(kernel.settings.pins / "maps/vips")) as vips:
        assert vips.spec == larger
        assert len(list(vips)) == 1
