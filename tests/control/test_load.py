"""A folder is read without trusting it to hold still, to be small, or to be there."""

import os

import pytest

from ztunnel.control.load import MAX_FILE_BYTES, Stamp, look, read, read_all
from ztunnel.errors import ConfigError, Fault


def test_manifests_are_found_below_the_folder(tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("a.yaml", "b.yml", "c.json", "d.txt", ".e.yaml", "sub/f.yaml", "sub/deep/g.yaml"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "h.yaml").write_text("x")
    os.mkfifo(tmp_path / "i.yaml")
    assert set(look(tmp_path)) == {"a.yaml", "b.yml", "c.json", "sub/f.yaml", "sub/deep/g.yaml"}


def test_links_count_as_what_they_lead_to_and_loops_end(tmp_path):
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "a.yaml").write_text("x")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "broken.yaml").symlink_to("nowhere")
    assert set(look(tmp_path)) == {"a.yaml"}


@pytest.mark.parametrize("name", ["gone", "file"])
def test_a_folder_that_is_none_is_a_fault(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="the folder cannot be read"):
        look(tmp_path / name)


def test_very_many_manifests_are_a_fault(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text("x")
    with pytest.raises(ConfigError, match="more than 2 manifests"):
        look(tmp_path, max_files=2)


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
    (tmp_path / "dir.yaml").mkdir()
    assert read(tmp_path, "dir.yaml", Stamp(0, 0, 0)) == Fault(
        "dir.yaml", 0, "", "cannot be read: Is a directory"
    )


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
