from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.kernel.lab import Kernel, Lab, endpoint, unique
from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf, cgroup
from ztunnel.redirect import load
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.plan import HOOKS, Target

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def links(kernel: Kernel) -> dict[str, bpf.LinkInfo]:
    found = {}
    for directory in ("links", "pods"):
        for place in (kernel.settings.pins / directory).iterdir():
            fd = bpf.open_pinned(place)
            found[place.name] = bpf.link_info(fd)
            bpf.close(fd)
    return found


def test_what_is_current_is_left_alone(kernel: Kernel) -> None:
    kernel.enroll("a")
    before = links(kernel)
    assert not load.ensure_loaded(kernel.settings)
    assert links(kernel) == before
    assert set(before) == {hook.name for hook in HOOKS if hook.target is Target.CGROUP} | {
        str(kernel.lab.a.cookie)
    }


def test_other_settings_replace_the_programs_and_keep_links_and_maps(kernel: Kernel) -> None:
    pod = kernel.enroll("a")
    before = links(kernel)
    assert load.ensure_loaded(replace(kernel.settings, lease_seconds=3.0))
    after = links(kernel)
    assert {name: link.id for name, link in after.items()} == {name: link.id for name, link in before.items()}
    assert all(after[name].program != link.program for name, link in before.items())
    assert set(kernel.redirection.enrolled()) == {pod.cookie}
    proxy = kernel.proxy("a")
    kernel.connect(kernel.lab.a, "10.96.0.1", 80)
    _, peer = kernel.accept(proxy)
    assert kernel.recall(pod.cookie, peer) is not None


def test_a_map_of_another_size_keeps_its_entries(kernel: Kernel) -> None:
    peer = endpoint("10.77.0.9", 1)
    kernel.redirection.admit(peer, endpoint("10.77.0.2", 80))
    kernel.enroll("a")
    assert load.ensure_loaded(replace(kernel.settings, max_connections=1024, max_verdicts=64))
    with Redirection.open(kernel.settings.pins) as fresh:
        assert set(fresh.enrolled()) == {kernel.lab.a.cookie}
    with bpf.Map(bpf.open_pinned(kernel.settings.pins / "maps/admitted")) as admitted:
        assert admitted.spec.max_entries == 1024
        assert len(list(admitted)) == 1


def test_an_interrupted_replacement_is_done_again(kernel: Kernel) -> None:
    kernel.enroll("a")
    before = {name: link.id for name, link in links(kernel).items()}
    (kernel.settings.pins / "version").unlink()
    for place in (kernel.settings.pins / "programs").iterdir():
        place.unlink()
    assert load.ensure_loaded(kernel.settings)
    assert {name: link.id for name, link in links(kernel).items()} == before
    assert not load.ensure_loaded(kernel.settings)


def test_another_cgroup_gets_links_of_its_own(kernel: Kernel) -> None:
    elsewhere = cgroup.create(kernel.lab.root / "elsewhere")
    try:
        assert load.ensure_loaded(replace(kernel.settings, cgroup=elsewhere))
        assert {link.target for link in links(kernel).values()} == {cgroup.cgroup_id(elsewhere)}
        load.remove(kernel.settings.pins)
    finally:
        cgroup.remove(elsewhere)


def test_only_root_may_touch_the_pins(kernel: Kernel) -> None:
    kernel.enroll("a")
    for path in (kernel.settings.pins, *kernel.settings.pins.rglob("*")):
        mode = path.lstat().st_mode
        expected = 0o777 if stat.S_ISLNK(mode) else 0o700 if stat.S_ISDIR(mode) else 0o600
        assert stat.S_IMODE(mode) == expected, path


def test_removal_leaves_nothing_and_may_be_repeated(kernel: Kernel) -> None:
    kernel.enroll("a")
    load.remove(kernel.settings.pins)
    load.remove(kernel.settings.pins)
    assert not kernel.settings.pins.exists()
    app = kernel.listen(kernel.lab.b, 8080)
    kernel.connect(kernel.lab.a, "10.77.0.3", 8080)
    kernel.accept(app)
    with pytest.raises(Unsupported, match="no redirection is loaded"):
        Redirection.open(kernel.settings.pins)


LOAD = """
import sys
from pathlib import Path
from ztunnel.redirect.load import ensure_loaded
from ztunnel.redirect.plan import RedirectSettings
pins, cache, root = map(Path, sys.argv[1:])
ensure_loaded(RedirectSettings(pins=pins, cache=cache, cgroup=root))
print(*sorted(name.partition(".")[0] for name in sys.modules if name.partition(".")[0] == "bcc"))
"""


def test_pinned_links_enforce_when_the_loader_has_exited_and_it_never_imports_the_compiler(
    lab: Lab, tmp_path
) -> None:
    settings = replace(lab.settings(), cache=tmp_path)
    places = map(str, (settings.pins, settings.cache, lab.root))
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, *places], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == ""
        with Redirection.open(settings.pins) as redirection:
            redirection.enroll(lab.pod("a"))
        with lab.a.socket(2, 1) as client:
            client.settimeout(3)
            with pytest.raises(ConnectionRefusedError):
                client.connect(("10.96.0.1", 80))
    finally:
        load.remove(settings.pins)


def test_a_spoilt_cache_is_made_again(lab: Lab, tmp_path) -> None:
    settings = replace(lab.settings(), cache=tmp_path)
    try:
        load.ensure_loaded(settings)
        load.remove(settings.pins)
        [cached] = tmp_path.glob("*.json")
        whole = cached.read_text()
        cached.write_text(whole[:1000])
        assert load.ensure_loaded(settings)
        assert cached.read_text() == whole
    finally:
        load.remove(settings.pins)


def test_pins_outside_a_bpffs_are_refused(lab: Lab, tmp_path) -> None:
    with pytest.raises(Unsupported, match="is on no bpffs"):
        load.ensure_loaded(replace(lab.settings(), pins=tmp_path / "pins"))
    assert not os.path.exists(tmp_path / "pins")


def test_what_is_current_needs_no_compiler(kernel: Kernel, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("ztunnel.kernel.compile._DISTRIBUTION", tmp_path)
    monkeypatch.setattr(sys, "path", [])
    assert not load.ensure_loaded(kernel.settings)


def test_what_another_has_loaded_is_required_to_be_current(kernel: Kernel, tmp_path) -> None:
    load.require_loaded(kernel.settings)
    with pytest.raises(Unsupported, match=r"are of another version or settings.*run `ztunnel load`"):
        load.require_loaded(replace(kernel.settings, lease_seconds=4.0))
    nowhere = kernel.settings.pins.with_name("none")
    with pytest.raises(Unsupported, match=rf"the programs under {nowhere} are not there"):
        load.require_loaded(replace(kernel.settings, pins=nowhere))
    with pytest.raises(Unsupported, match="mount the host's /sys/fs/bpf at /sys/fs/bpf"):
        load.require_loaded(replace(kernel.settings, pins=tmp_path))


def test_a_cache_without_room_is_gone_without(lab: Lab, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    settings = replace(lab.settings(), cache=tmp_path)
    monkeypatch.setattr("ztunnel.redirect.load.Path.write_text", full)
    try:
        assert load.ensure_loaded(settings)
        assert list(tmp_path.glob("*.json")) == []
    finally:
        load.remove(settings.pins)


def test_what_is_compiled_in_advance_is_only_loaded_later(kernel: Kernel) -> None:
    settings = replace(kernel.settings, pins=kernel.settings.pins.with_name(unique()))
    load.ensure_compiled(settings)
    assert not settings.pins.exists()
    load.ensure_compiled(kernel.settings)  # of what runs already nothing is compiled
    before = links(kernel)
    assert not load.ensure_loaded(kernel.settings)
    assert links(kernel) == before


def test_while_a_proxy_serves_another_layout_is_left_to_the_next_one(kernel: Kernel) -> None:
    kernel.enroll("a")
    larger = replace(kernel.settings, max_connections=2048)
    before, version = links(kernel), os.readlink(kernel.settings.pins / "version")
    assert load.ensure_loaded(larger, is_served=True) is load.Loaded.LEFT
    assert (links(kernel), os.readlink(kernel.settings.pins / "version")) == (before, version)
    with pytest.raises(Unsupported, match="are of another version or settings"):
        load.require_loaded(larger)
    filled = []
    # By whoever takes over, without a compiler.
    load.require_loaded(larger, lambda maps: filled.append(sorted(maps)))
    assert len(filled) == 1
    assert "listeners" in filled[0]
    load.require_loaded(larger)
    assert {name: link.id for name, link in links(kernel).items()} == {
        name: link.id for name, link in before.items()
    }
    # Back, as after a rollback.
    assert load.ensure_loaded(kernel.settings, is_served=True) is load.Loaded.LEFT
    load.require_loaded(kernel.settings, lambda maps: None)
    assert load.ensure_loaded(kernel.settings) is load.Loaded.CURRENT


def test_what_was_removed_since_it_was_loaded_is_put_in_place_again_without_a_compiler(
    kernel: Kernel, monkeypatch, tmp_path
) -> None:
    settings = replace(kernel.settings, pins=kernel.settings.pins.with_name(unique()))
    load.ensure_compiled(settings)
    monkeypatch.setattr("ztunnel.kernel.compile._DISTRIBUTION", tmp_path)
    monkeypatch.setattr(sys, "path", [])
    try:
        with pytest.raises(Unsupported, match="are not there"):
            load.require_loaded(settings)  # it only looks
        load.require_loaded(settings, lambda maps: None)
        load.require_loaded(settings)
        load.remove(settings.pins)
        load.require_loaded(settings, lambda maps: None)
        load.require_loaded(settings)
    finally:
        load.remove(settings.pins)


def test_while_a_proxy_serves_programs_of_the_same_layout_are_replaced(kernel: Kernel) -> None:
    other = replace(kernel.settings, lease_seconds=5.0)
    assert load.ensure_loaded(other, is_served=True) is load.Loaded.ANEW
    assert load.ensure_loaded(other, is_served=True) is load.Loaded.CURRENT


def test_what_was_never_compiled_is_put_in_place_by_nobody_else(kernel: Kernel, tmp_path) -> None:
    with pytest.raises(Unsupported, match="run `ztunnel load`"):
        load.require_loaded(replace(kernel.settings, max_connections=4096, cache=tmp_path), lambda maps: None)
