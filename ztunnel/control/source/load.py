"""Reads a folder of manifests: which files are in it, whether they hold still, what stands in them.

Whatever is no file that can be read is a fault of its own name, never silence and never a reason to wait: a
FIFO has no writer, a device no end, a link may lead nowhere or in a circle."""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from ztunnel.control.source.kept_texts import is_text, read_texts, render_texts
from ztunnel.errors import ConfigError, Fault

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILE_BYTES: Final = 64 * 2**20
MAX_FOLDER_BYTES: Final = 256 * 2**20
"""Of all files together: what is read of them stays in memory."""
MAX_FILES: Final = 50_000
MAX_DEPTH: Final = 16

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Encodings by their byte order marks (YAML 1.2, 5.2), UTF-32 before UTF-16, whose mark begins alike."""

_KINDS: Final = (
    (stat.S_ISFIFO, "is a FIFO"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
    (stat.S_ISDIR, "is a folder"),
)


class Stamp(NamedTuple):
    """What tells one state of a file from another without reading it."""

    modified_ns: int
    size_bytes: int
    inode: int


Seen = Stamp | Fault
"""A file's state, or why it has none."""

Files = dict[str, tuple[Seen, str | Fault]]
"""By name: the state in which a file was read, and its text or the fault that kept it from being read."""


def look(folder: Path, known: Collection[str] = (), max_files: int = MAX_FILES) -> dict[str, Seen]:
    """The manifests below `folder` by their path in it, and what should be one and is none, with its fault.
    Hidden files and folders do not count (editors' and Kubernetes' own: `..data`); a link counts as what it
    leads to.

    Of more than `max_files` those that are `known` count, and others up to that number; one fault, under the
    name "", says so.

    Raises:
        ConfigError: the folder is gone, is none, or cannot be read.
    """
    found: dict[str, Seen] = {}
    ignored = 0
    try:
        for name, seen in _walk(folder):
            if len(found) < max_files or name in known:
                found[name] = seen
            else:
                ignored += 1
    except OSError as error:
        raise ConfigError(
            Fault(str(folder), 0, "", f"the folder cannot be read: {error.strerror}")
        ) from error
    if ignored:
        message = f"more than {max_files} manifests: {ignored} that came last are not read"
        found[""] = Fault(str(folder), 0, "", message)
    return found


def read(folder: Path, name: str, stamp: Stamp) -> str | Fault | None:
    """A file's text, or what is wrong with it, or None where it is not (or no longer) in the state of
    `stamp`: it is being written and will be looked at again. Never waits for a writer.

    Raises:
        OSError: it cannot be read now; that may pass without a change of the file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        with open(os.open(folder / name, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or _stamp(status) != stamp:
                return None
            if stamp.size_bytes > MAX_FILE_BYTES:
                return Fault(name, 0, "", f"larger than {MAX_FILE_BYTES // 2**20} MiB")
            content = file.read(stamp.size_bytes + 1)
            if _stamp(os.fstat(file.fileno())) != stamp or len(content) != stamp.size_bytes:
                return None
    except FileNotFoundError:
        return None
    return _decode(name, content)


def _decode(name: str, content: bytes) -> str | Fault:
    encoding, start = next(
        ((encoding, len(mark)) for mark, encoding in _MARKS if content.startswith(mark)), ("utf-8", 0)
    )
    try:
        return content[start:].decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, start + error.start) + 1
        return Fault(name, line, "", f"not {encoding.removesuffix('-le').removesuffix('-be').upper()}")


def read_all(folder: Path, wanted: Mapping[str, Seen], before: Files) -> Files:
    """Every file of `wanted`; from `before` where its state is the same, or it moved under the reading.

    What cannot be read now stands with its fault for its state, so that it is not taken for read.
    """
    result: Files = {}
    room = MAX_FOLDER_BYTES
    for name, seen in wanted.items():
        old = before.get(name)
        if isinstance(seen, Fault):
            result[name] = (seen, seen)
            continue
        room -= seen.size_bytes
        if room < 0:
            room += seen.size_bytes
            message = f"not read: the files of the folder are larger than {MAX_FOLDER_BYTES // 2**20} MiB"
            result[name] = (Fault(name, 0, "", message),) * 2
        elif old is not None and old[0] == seen:
            result[name] = old
        else:
            fresh = _read_now(folder, name, seen) or old
            if fresh is not None:
                result[name] = fresh
    return result


def _read_now(folder: Path, name: str, stamp: Stamp) -> tuple[Seen, str | Fault] | None:
    try:
        text = read(folder, name, stamp)
    except OSError as error:
        return (_unreadable(name, error),) * 2
    return None if text is None else (stamp, text)


class Memory(NamedTuple):
    """What the next process is told: the last good text of each file, the Gateways, `namespace/name`,
    that have served as waypoints, and texts of mesh configs with the names of what is good in them."""

    files: Mapping[str, str]
    served: tuple[str, ...] = ()
    mesh: tuple[tuple[str, tuple[str, ...]], ...] = ()


def recall(path: Path, folder: Path) -> Memory:
    """What of `folder` `remember` has kept; nothing where nothing was kept."""
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
        if isinstance(kept, dict) and kept.get("folder") == str(folder) and isinstance(kept["files"], dict):
            served = kept.get("served")
            return Memory(
                {name: text for name, text in kept["files"].items() if isinstance(text, str)},
                tuple(filter(is_text, served if isinstance(served, list) else ())),
                read_texts(kept.get("mesh")),
            )
    return Memory({})


def remember(path: Path, folder: Path, memory: Memory) -> None:
    """Keep it for the next process. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8", errors="surrogatepass") as file:
        values = {"served": memory.served, "mesh": render_texts(memory.mesh)}
        json.dump({"folder": str(folder), "files": dict(memory.files), **values}, file)
    fresh.rename(path)


def _walk(folder: Path) -> Iterator[tuple[str, Seen]]:
    """What is in a folder and below. Raises OSError: the folder itself cannot be read.

    Links to folders are followed when all else was seen, and each folder is read once, however many links
    lead to it: so circles of links end, and cost one fault each.
    """
    visited: dict[tuple[int, int], str] = {}
    folders, links = [""], list[str]()
    while folders or links:
        below = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(folder / below)
            first = visited.setdefault((status.st_dev, status.st_ino), below)
            if first != below:
                yield (
                    below,
                    Fault(below, 0, "", f"a link to the folder {first or '.'}, which is read already"),
                )
            elif below.count("/") >= MAX_DEPTH:
                yield below, Fault(below, 0, "", f"not read: more than {MAX_DEPTH} folders deep")
            else:
                yield from _list(folder, below, folders, links)
        except OSError as error:
            if not below:
                raise
            if not isinstance(error, FileNotFoundError):
                yield below, _unreadable(below, error)


def _list(folder: Path, below: str, folders: list[str], links: list[str]) -> Iterator[tuple[str, Seen]]:
    """The files of one folder; its folders, and links to such, are added to the lists."""
    found: list[str] = []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{below}/{entry.name}" if below else entry.name
            try:
                if entry.is_dir():
                    (found if entry.is_symlink() else folders).append(name)
                elif entry.name.endswith(SUFFIXES) or entry.is_symlink():
                    yield from _file(entry, name)
            except OSError as error:
                yield name, _unreadable(name, error)
    links += sorted(found)


def _unreadable(name: str, error: OSError) -> Fault:
    return Fault(name, 0, "", f"cannot be read: {error.strerror}")


def _file(entry: os.DirEntry[str], name: str) -> Iterator[tuple[str, Seen]]:
    """The file, if it is still there; a fault where it should be one and is none."""
    manifest = entry.name.endswith(SUFFIXES)
    try:
        status = entry.stat()
    except FileNotFoundError:
        # A link without a suffix may have led to a folder of manifests.
        if entry.is_symlink() and (manifest or "." not in entry.name):
            yield name, Fault(name, 0, "", "a link that leads nowhere")
        return
    if not manifest:
        return
    if stat.S_ISREG(status.st_mode):
        yield name, _stamp(status)
        return
    what = next((text for is_one, text in _KINDS if is_one(status.st_mode)), "is no file")
    yield name, Fault(name, 0, "", f"{what}, no file")


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_mtime_ns, status.st_size, status.st_ino)
