"""A folder is read without trusting it to hold still, to be small, to be there, or to consist of files."""

import os
import resource
import socket
from contextlib import contextmanager

import pytest

from ztunnel.control.source import load
from ztunnel.control.source.load import MAX_FILE_BYTES, Memory, Stamp, look, read, read_all, recall, remember
from ztunnel.errors import ConfigError, Fault


def test_manifests_are_found_below_the_folder(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("a.yaml", "b.yml", "c.json", "d.txt", ".e.yaml", "sub/f.yaml", "sub/deep/g.yaml"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "h.yaml").write_text("x")
    assert set(look(tmp_path)) == {"a.yaml", "b.yml", "c.json", "sub/f.yaml", "sub/deep/g.yaml"}


def test_links_count_as_what_they_lead_to(tmp_path):
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "a.yaml").write_text("x")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    outside = tmp_path.with_name("outside")
    outside.mkdir()
    (outside / "b.yaml").write_text("x")
    (tmp_path / "base").symlink_to(outside)
    assert set(look(tmp_path)) == {"a.yaml", "base/b.yaml"}


def message_of(path, name):
    return {one: str(seen) for one, seen in look(path).items() if isinstance(seen, Fault)}[name]


def test_what_should_be_a_manifest_and_is_no_file_is_a_fault(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.yaml"))
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    (tmp_path / "nowhere.yaml").symlink_to("gone")
    (tmp_path / "folder").symlink_to("gone")
    (tmp_path / "itself.yaml").symlink_to("itself.yaml")
    (tmp_path / "notes.txt").symlink_to("gone")
    assert {name: str(fault) for name, fault in look(tmp_path).items()} == {
        "fifo.yaml": "fifo.yaml: is a FIFO, no file",
        "socket.yaml": "socket.yaml: is a socket, no file",
        "device.yaml": "device.yaml: is a device, no file",
        "nowhere.yaml": "nowhere.yaml: a link that leads nowhere",
        "folder": "folder: a link that leads nowhere",
        "itself.yaml": "itself.yaml: cannot be read: Too many levels of symbolic links",
    }


def test_circles_of_links_end_and_are_faults(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.yaml").write_text("x")
    (tmp_path / "a" / "up").symlink_to("..")
    for n in range(12):
        (tmp_path / "a" / f"again{n}").symlink_to("../a")
        (tmp_path / f"b{n}").symlink_to("a")
    found = look(tmp_path)
    assert [name for name, seen in found.items() if isinstance(seen, Stamp)] == ["a/x.yaml"]
    assert str(found["a/up"]) == "a/up: a link to the folder ., which is read already"
    assert str(found["b3"]) == "b3: a link to the folder a, which is read already"


def test_folders_without_end_are_a_fault(tmp_path):
    deep = tmp_path.joinpath(*("d" * 20))
    deep.mkdir(parents=True)
    (deep / "a.yaml").write_text("x")
    ((name, fault),) = look(tmp_path).items()
    assert (name.count("/"), fault.message) == (16, "not read: more than 16 folders deep")


@pytest.mark.parametrize("name", ["gone", "file"])
def test_a_folder_that_is_none_is_a_fault(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="the folder cannot be read"):
        look(tmp_path / name)


def test_of_very_many_manifests_those_that_are_known_count(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.yaml").write_text("x")
    found = look(tmp_path, ["c.yaml", "d.yaml"], max_files=1)
    assert found.keys() >= {"c.yaml", "d.yaml"}
    assert "more than 1 manifests" in str(found[""])
    assert isinstance(found[""], Fault)


def test_a_file_is_read_in_the_state_that_was_seen(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbftext")
    stamp = look(tmp_path)["a.yaml"]
    assert read(tmp_path, "a.yaml", stamp) == "text"
    assert read(tmp_path, "a.yaml", stamp._replace(inode=0)) is None
    assert read(tmp_path, "b.yaml", stamp) is None


def test_what_cannot_be_read_is_a_fault(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"a: 1\nb: \xff\n")
    assert read(tmp_path, "a.yaml", look(tmp_path)["a.yaml"]) == Fault("a.yaml", 2, "", "not UTF-8")
    (tmp_path / "big.yaml").touch()
    os.truncate(tmp_path / "big.yaml", MAX_FILE_BYTES + 1)
    fault = read(tmp_path, "big.yaml", look(tmp_path)["big.yaml"])
    assert fault == Fault("big.yaml", 0, "", "larger than 64 MiB")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_is_decoded_by_its_byte_order_mark(tmp_path, encoding):
    (tmp_path / "a.yaml").write_bytes("a: \u00fc\n".encode(encoding))
    assert read(tmp_path, "a.yaml", look(tmp_path)["a.yaml"]) == "a: \u00fc\n"
    (tmp_path / "b.yaml").write_bytes("a".encode(encoding) + b"\xff\xff\xff")
    assert "not UTF-" in str(read(tmp_path, "b.yaml", look(tmp_path)["b.yaml"]))


def test_a_file_that_has_become_a_fifo_since_it_was_seen_is_not_waited_for(tmp_path):
    (tmp_path / "a.yaml").write_text("x")
    stamp = look(tmp_path)["a.yaml"]
    (tmp_path / "a.yaml").unlink()
    os.mkfifo(tmp_path / "a.yaml")
    assert read(tmp_path, "a.yaml", stamp) is None
    assert "FIFO" in message_of(tmp_path, "a.yaml")


def test_what_cannot_be_read_now_is_tried_again_though_it_has_not_changed(tmp_path):
    (tmp_path / "a.yaml").write_text("x")
    seen = look(tmp_path)
    with exhausted_descriptors():
        failed = read_all(tmp_path, seen, {})
    assert str(failed["a.yaml"][1]) == "a.yaml: cannot be read: Too many open files"
    assert read_all(tmp_path, seen, failed)["a.yaml"][1] == "x"


@contextmanager
def exhausted_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_folder_that_is_too_large_in_all_costs_the_files_beyond(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "MAX_FOLDER_BYTES", 10)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("123456")
    seen = dict(sorted(look(tmp_path).items()))
    files = read_all(tmp_path, seen, {})
    assert files["a.yaml"][1] == "123456"
    assert "the files of the folder are larger than" in str(files["b.yaml"][1])
    monkeypatch.setattr(load, "MAX_FOLDER_BYTES", 100)
    assert read_all(tmp_path, seen, files)["b.yaml"][1] == "123456"


def test_texts_are_remembered_for_one_folder(tmp_path):
    path = tmp_path / "state" / "last-good.json"
    assert recall(path, tmp_path) == Memory({})
    remember(path, tmp_path, Memory({"a.yaml": "\u00fc\n", "b.yaml": ""}))
    memory = Memory({"a.yaml": "\u00fc\n"}, ("shop/wp",), (("text", ("", "asks")),))
    remember(path, tmp_path, memory)
    assert recall(path, tmp_path) == memory
    assert recall(path, tmp_path / "other") == Memory({})
    assert path.stat().st_mode & 0o777 == 0o600
    for text in ("", "{", "[]", '{"folder": 1}', '{"files": []}'):
        path.write_text(text)
        assert recall(path, tmp_path) == Memory({})


def test_only_what_changed_is_read_again(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text(name)
    before = read_all(tmp_path, look(tmp_path), {})
    (tmp_path / "b.yaml").write_text("changed")
    after = read_all(tmp_path, look(tmp_path), before)
    assert after["a.yaml"] is before["a.yaml"]
    assert after["b.yaml"][1] == "changed"


def test_what_moves_under_the_reading_stays_as_it_was(tmp_path):
    (tmp_path / "a.yaml").write_text("a")
    stamps = look(tmp_path)
    before = read_all(tmp_path, stamps, {})
    moved = {"a.yaml": stamps["a.yaml"]._replace(size_bytes=2), "new.yaml": Stamp(1, 1, 1)}
    assert read_all(tmp_path, moved, before) == before
