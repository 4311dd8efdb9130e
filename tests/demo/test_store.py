from itertools import count

import pytest

from ztunnel.demo.assign import Objects
from ztunnel.demo.manifest import Key, parse
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.schedule import complete
from ztunnel.demo.store import path_of, read_objects, read_store, remove_files, write_objects

pytestmark = pytest.mark.root

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: t}\n"
POLICY = (
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: t} # why\n"
)
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: t}
spec:
  selector: {matchLabels: {app: d}}
  template: {metadata: {labels: {app: d}}, spec: {containers: [{name: d}]}}
"""
THE_POD, THE_POLICY = Key("", "Pod", "t", "a"), Key("security.istio.io", "PeerAuthentication", "t", "p")


def completed(text: str, before: Objects | None = None) -> Objects:
    uids = map(str, count())
    return complete(before or {}, parse(text, "x.yaml"), lambda: next(uids))


def test_what_is_written_is_read_again_with_where_it_came_from(laboratory: Laboratory) -> None:
    names, objects = laboratory.names, completed(POD + "---\n" + POLICY)
    write_objects(names, {}, objects)
    found = read_objects(names)
    assert {key: manifest.body for key, manifest in found.items()} == {
        key: manifest.body for key, manifest in objects.items()
    }
    assert {(manifest.file, manifest.line) for manifest in found.values()} == {
        ("x.yaml", 1),
        ("x.yaml", 5),
        ("", 0),
    }


def test_only_what_changed_is_written_and_what_is_gone_is_removed(laboratory: Laboratory) -> None:
    names, before = laboratory.names, completed(POD + "---\n" + POLICY)
    write_objects(names, {}, before)
    inodes = {path.name: path.stat().st_ino for path in names.manifests.iterdir()}
    after = completed(POD.replace("t}", "t, labels: {x: y}}"), before)
    after = {key: manifest for key, manifest in after.items() if key.kind != "PeerAuthentication"}
    write_objects(names, before, after)
    changed = {path.name for path in names.manifests.iterdir() if path.stat().st_ino != inodes[path.name]}
    assert changed == {"pod_t_a.yaml"}
    assert len(list(names.manifests.iterdir())) == len(inodes) - 1


def test_node_proxies_are_not_shown_what_they_do_not_read(laboratory: Laboratory) -> None:
    names, objects = laboratory.names, completed(DEPLOYMENT)
    write_objects(names, {}, objects)
    assert [path.name for path in names.workloads.iterdir()] == ["deployment.apps_t_d.yaml"]
    assert not [path for path in names.manifests.iterdir() if "deployment" in path.name]
    assert read_objects(names).keys() == objects.keys()


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + b"a: b: c\n",
        b"[" * 200_000,
        b"\xff\xfe",
        b"kind: Pod\n",
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: z}\nspec: {hostNetwork: [1]}\n",
        b"x: &a [*a]\n",
        b"- 1\n",
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault_and_the_rest_is_read(
    laboratory: Laboratory, content: bytes
) -> None:
    names = laboratory.names
    write_objects(names, {}, completed(POD))
    (names.manifests / "bad.yaml").write_bytes(content)
    (names.manifests / "dangling.yaml").symlink_to("nowhere")
    (names.manifests / "folder.yaml").mkdir()
    store = read_store(names)
    assert THE_POD in store.objects
    assert {fault.file for fault in store.faults} == {str(names.manifests / "bad.yaml")}


def test_an_object_is_removed_wherever_it_stands(laboratory: Laboratory) -> None:
    names = laboratory.names
    write_objects(names, {}, completed(POD))
    path_of(names, THE_POD).write_text("[")  # it cannot be read any more
    shared = names.manifests / "by-hand.yaml"
    shared.write_text(POLICY + "---\n" + POLICY.replace("name: p", "name: q"))
    remove_files(names, [THE_POD, THE_POLICY])
    assert not path_of(names, THE_POD).exists()
    assert {key.name for key in read_objects(names) if key.kind == "PeerAuthentication"} == {"q"}
    remove_files(names, [Key("security.istio.io", "PeerAuthentication", "t", "q")])
    assert not shared.exists()
