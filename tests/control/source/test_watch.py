"""A folder's changes are taken over once they hold still, and a mistake in it costs only itself."""

import os
from pathlib import Path
from random import Random

import pytest
import trio

from tests.control.source.test_follow import Issuer
from ztunnel.control.keys.fetch_keys import Keys
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.watch import FolderWatch
from ztunnel.xds.resource import ADDRESS, JWT_POLICY, PROVIDER
from ztunnel.xds.snapshot import Snapshot


def pod(name: str, ip: str) -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: ns}}\nstatus: {{podIP: {ip}}}\n"


class Folder:
    """A folder with a watch on it, and what the watch published and said."""

    def __init__(self, path: Path, *, remembers: bool = False) -> None:
        self.path = path / "manifests"
        self.path.mkdir(exist_ok=True)
        memory = path / "memory" / "last-good.json" if remembers else None
        self.published: list[Snapshot] = []
        self.observed = 0
        self.watch = FolderWatch(self.path, MeshSettings(), self.published.append, self.observe, memory)

    def observe(self) -> None:
        self.observed += 1

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def names(self) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.published[-1].resources[ADDRESS])

    def addresses(self, name: str) -> tuple[object, ...]:
        return self.published[-1].origins[ADDRESS][f"Kubernetes//Pod/ns/{name}"].addresses

    async def settle(self) -> None:
        await self.watch.poll()
        await self.watch.poll()


@pytest.fixture
async def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.write("a.yaml", pod("a", "10.0.0.1"))
    await made.watch.poll(patient=False)
    assert made.names() == ["a"]
    return made


async def test_a_change_is_taken_over_at_the_second_look(folder):
    folder.write("b.yaml", pod("b", "10.0.0.2"))
    await folder.watch.poll()
    assert len(folder.published) == 1
    await folder.watch.poll()
    assert folder.names() == ["a", "b"]
    await folder.settle()
    assert len(folder.published) == 2


async def test_what_does_not_change_is_not_rendered_again(folder):
    folder.write("b.yaml", pod("b", "10.0.0.2"))
    await folder.settle()
    first, second = (snapshot.resources[ADDRESS]["Kubernetes//Pod/ns/a"] for snapshot in folder.published)
    assert first is second


async def test_a_file_that_goes_and_comes_back_at_once_was_never_gone(folder):
    (folder.path / "a.yaml").unlink()
    await folder.watch.poll()
    folder.write("a.yaml", pod("a", "10.0.0.9"))
    await folder.settle()
    assert len(folder.published) == 2
    assert folder.names() == ["a"]


async def test_a_file_that_stays_away_is_gone(folder):
    (folder.path / "a.yaml").unlink()
    await folder.settle()
    assert folder.names() == []


async def test_a_file_that_never_holds_still_does_not_hold_up_the_others(folder):
    for n in range(4):
        folder.write("a.yaml", pod("a", f"10.0.1.{n}" * (n + 1)))
        folder.write("b.yaml", pod("b", "10.0.0.2")) if n == 0 else None
        await folder.watch.poll()
    assert folder.names() == ["a", "b"]
    assert folder.watch.faults == ()


async def test_a_half_written_file_drops_nothing(folder):
    folder.write("a.yaml", "")
    await folder.watch.poll()
    folder.write("a.yaml", pod("a", "10.0.0.1") + "---\n" + pod("b", "10.0.0.2"))
    await folder.settle()
    assert [len(snapshot.resources[ADDRESS]) for snapshot in folder.published] == [1, 2]


async def test_faults_are_reported_and_what_is_good_is_taken_over(folder):
    folder.write("b.yaml", "apiVersion: v1\nkind: Pod\nsepc: {}\n")
    folder.write("c.yaml", pod("c", "10.0.0.3"))
    await folder.settle()
    assert folder.names() == ["a", "c"]
    assert {(fault.file, fault.line) for fault in folder.watch.faults} == {("b.yaml", 1), ("b.yaml", 3)}
    assert folder.observed == 2
    await folder.settle()
    assert folder.observed == 2
    folder.write("b.yaml", pod("b", "10.0.0.2"))
    await folder.settle()
    assert folder.watch.faults == ()
    assert (folder.names(), folder.observed) == (["a", "b", "c"], 3)


async def test_a_mistake_leaves_the_last_good_version_in_force(folder):
    for text in ("a: [", pod("a", "10.0.0.300"), pod("a", "10.0.0.9") + "x: 1\n", pod("A", "10.0.0.9")):
        folder.write("a.yaml", text)
        await folder.settle()
        assert len(folder.watch.faults) == 1
        assert folder.names() == ["a"]
        assert [str(ip) for ip in folder.addresses("a")] == ["10.0.0.1"]
    folder.write("a.yaml", pod("a", "10.0.0.9"))
    await folder.settle()
    assert folder.watch.faults == ()
    assert [str(ip) for ip in folder.addresses("a")] == ["10.0.0.9"]


async def test_what_is_no_file_any_more_leaves_the_last_good_version_in_force(folder):
    (folder.path / "a.yaml").unlink()
    os.mkfifo(folder.path / "a.yaml")
    folder.write("b.yaml", pod("b", "10.0.0.2"))
    await folder.settle()
    assert [str(fault) for fault in folder.watch.faults] == ["a.yaml: is a FIFO, no file"]
    assert folder.names() == ["a", "b"]
    (folder.path / "a.yaml").unlink()
    await folder.settle()
    assert (folder.watch.faults, folder.names()) == ((), ["b"])


async def test_each_change_says_what_it_changed(folder):
    assert [str(key) for key in folder.watch.change.added] == ["Pod ns/a"]
    folder.write("b.yaml", pod("b", "10.0.0.2"))
    (folder.path / "a.yaml").unlink()
    await folder.settle()
    assert folder.watch.change.fields() == {"added": "Pod ns/b", "removed": "Pod ns/a"}
    await folder.settle()
    assert not folder.watch.change


async def test_a_file_that_does_not_hold_still_for_long_is_a_fault_and_no_hindrance(folder):
    for n in range(45):
        folder.write("a.yaml", pod("a", "10.0.1.1") + "#" * n)
        await folder.watch.poll()
    assert "does not hold still" in str(folder.watch.faults[0])
    assert [str(ip) for ip in folder.addresses("a")] == ["10.0.0.1"]
    await folder.settle()
    assert folder.watch.faults == ()
    assert [str(ip) for ip in folder.addresses("a")] == ["10.0.1.1"]


async def test_the_last_good_version_outlives_the_process(tmp_path):
    first = Folder(tmp_path, remembers=True)
    first.write("a.yaml", pod("a", "10.0.0.1"))
    first.write("b.yaml", pod("b", "10.0.0.2"))
    first.write("c.yaml", pod("c", "10.0.0.3"))
    await first.watch.poll(patient=False)
    first.write("a.yaml", "a: [")
    await first.settle()
    first.write("b.yaml", pod("b", "10.0.0.2") + "x: 1\n")
    (first.path / "c.yaml").unlink()
    second = Folder(tmp_path, remembers=True)
    await second.watch.poll(patient=False)
    assert second.names() == ["a", "b"]
    assert len(second.watch.faults) == 2
    assert not second.watch.change.removed


async def test_a_provider_as_it_was_last_good_outlives_the_process(tmp_path):
    def config(port):
        provider = f"{{name: asks, envoyExtAuthzHttp: {{service: a.b, port: {port}}}}}"
        meta = "{name: ztunnel-mesh, namespace: ztunnel-system}"
        text = f"'extensionProviders: [{provider}]'"
        return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {meta}\ndata: {{mesh: {text}}}\n"

    first = Folder(tmp_path, remembers=True)
    first.write("a.yaml", config(80))
    await first.watch.poll(patient=False)
    first.write("a.yaml", config(0))
    await first.settle()
    second = Folder(tmp_path, remembers=True)
    await second.watch.poll(patient=False)
    (provider,) = second.published[-1].origins[PROVIDER].values()
    assert provider.what.service.port == 80
    text = second.watch.warnings[-1]
    assert text.endswith("provider 'asks' is not taken over: its last good version is in force")


async def test_where_nothing_can_be_remembered_nothing_else_fails(tmp_path):
    (tmp_path / "memory").write_text("a file")
    folder = Folder(tmp_path, remembers=True)
    folder.write("a.yaml", pod("a", "10.0.0.1"))
    await folder.watch.poll(patient=False)
    assert folder.names() == ["a"]
    warning = "the last good manifests cannot be kept over a restart: "
    assert [text[: len(warning)] for text in folder.watch.warnings] == [warning]
    (tmp_path / "memory").unlink()
    folder.write("b.yaml", pod("b", "10.0.0.2"))
    await folder.settle()
    assert folder.watch.warnings == ()
    assert (tmp_path / "memory" / "last-good.json").exists()


async def test_taking_a_mistake_back_fixes_it(folder):
    folder.write("b.yaml", "a: [")
    await folder.settle()
    assert folder.watch.faults
    (folder.path / "b.yaml").unlink()
    await folder.settle()
    assert folder.watch.faults == ()
    assert folder.names() == ["a"]


async def test_a_folder_that_vanishes_leaves_the_state_and_is_a_fault_until_it_is_back(folder):
    folder.path.rename(folder.path.with_name("away"))
    await folder.settle()
    assert "the folder cannot be read" in str(folder.watch.faults[0])
    assert len(folder.published) == 1
    folder.path.with_name("away").rename(folder.path)
    await folder.settle()
    assert folder.watch.faults == ()
    assert len(folder.published) == 1


async def test_a_folder_that_is_wrong_from_the_start_is_loaded_with_what_is_good(tmp_path):
    folder = Folder(tmp_path)
    folder.write("a.yaml", "a: [")
    folder.write("b.yaml", pod("b", "10.0.0.2"))
    await folder.watch.poll(patient=False)
    assert folder.watch.loaded
    assert folder.names() == ["b"]
    folder.write("a.yaml", pod("a", "10.0.0.1"))
    await folder.settle()
    assert folder.names() == ["a", "b"]


async def test_a_folder_that_is_not_there_is_not_loaded(tmp_path):
    folder = Folder(tmp_path)
    folder.path.rmdir()
    await folder.watch.poll(patient=False)
    assert not folder.watch.loaded
    assert folder.published == []


async def test_an_empty_folder_is_a_state(tmp_path):
    folder = Folder(tmp_path)
    await folder.watch.poll(patient=False)
    assert folder.watch.loaded
    assert folder.names() == []


async def test_warnings_are_those_of_the_state_in_force(folder):
    folder.write("b.yaml", "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: s}\n")
    await folder.settle()
    assert folder.watch.warnings == ("not read: PodTemplate",)


async def test_it_polls_until_cancelled(tmp_path, autojump_clock):
    folder = Folder(tmp_path)
    published = trio.Event()
    watch = FolderWatch(folder.path, MeshSettings(), lambda snapshot: published.set())
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        assert watch.loaded
        published = trio.Event()
        folder.write("a.yaml", pod("a", "10.0.0.1"))
        begun = trio.current_time()
        await published.wait()
        assert trio.current_time() - begun <= 1.0
        nursery.cancel_scope.cancel()


async def test_keys_of_issuers_are_fetched_and_published_when_they_are_others(tmp_path, autojump_clock):
    (tmp_path / "a.yaml").write_text(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        "metadata: {name: p, namespace: shop}\n"
        "spec: {targetRefs: [{kind: Service, name: web}], jwtRules: [{issuer: 'https://i.example'}]}\n"
    )
    issuer, published = Issuer(), []
    watch = FolderWatch(tmp_path, MeshSettings(), published.append)
    watch.keys = Keys(issuer, Random(1))

    def keys():
        return published[-1].origins[JWT_POLICY]["shop/p"].rules[0].keys

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.keys.run)
        await nursery.start(watch.run)
        assert keys() == ""
        with trio.fail_after(10_000):
            for kid in ("k1", "k2"):
                issuer.kid = kid
                while kid not in keys():  # noqa: ASYNC110 (it knows no Trio events)
                    await trio.sleep(1)
            issuer.away = True
            while not watch.warnings:  # noqa: ASYNC110 (nor does this)
                await trio.sleep(1)
        assert "k2" in keys()
        nursery.cancel_scope.cancel()
