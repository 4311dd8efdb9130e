"""What holds for every test: time limits, root, nothing left behind, and a count of what could not run."""

from __future__ import annotations

import gc
import os
import re
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests import leftovers
from tests.analyze.kubectl import kubectl as kubectl
from tests.install.helm import fake_helm as fake_helm

TREES = ("tests/kernel", "tests/mesh")  # what needs the machine: slow, and never skipped whole in CI
SLOW_SECONDS = 60.0
PROPERTY_SECONDS = 30.0  # a hundred examples; a time limit in one of them would be taken for a fault of it
PINS = Path("/sys/fs/bpf/ztunnel")
CLAIMS = "tests/demo/claims/"
GRACE_SECONDS = 2.0  # a thread ends a little later than its last work

hypothesis.settings.register_profile(
    "house", deadline=None, max_examples=100, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("house")


def tree_of(item: pytest.Item) -> str | None:
    """Which of TREES a test stands in."""
    path = item.path.relative_to(item.config.rootpath).as_posix()
    return next((tree for tree in TREES if path.startswith(f"{tree}/")), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several workers each has whole files; the claims, which share one laboratory, go to one of them."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return CLAIMS if nodeid.startswith(CLAIMS) else super()._split_scope(nodeid)

    return Scheduling(config, log)


def turned(folders: list[str], worker: str, workers: int) -> list[str]:
    """The same folders from another one on for each worker, of `gw0` to `gw<workers - 1>`."""
    start = int(re.sub(r"\D", "", worker)) * len(folders) // workers
    return [*folders[start:], *folders[:start]]


def pytest_configure(config: pytest.Config) -> None:
    """Every worker reads all tests. Each begins elsewhere, so that it finds most of them compiled by another
    one, and not all compile the same at the same time. What is run in which order is sorted afterwards."""
    given = getattr(config, "workerinput", None)
    if given is None or config.args != config.getini("testpaths") or config.getoption("ignore"):
        return  # what is named is not ignored
    left_out = config.getini("norecursedirs")
    places = [path for path in Path(__file__).parent.iterdir() if not any(map(path.match, left_out))]
    folders = sorted(str(path) for path in places if path.is_dir() and path.name != "__pycache__")
    modules = sorted(str(path) for path in places if path.match("test_*.py"))
    config.args[:] = [*turned(folders, given["workerid"], given["workercount"]), *modules]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests of the machine their time limit, and put the files first that may take longest where several
    workers share them: none is left with one when the others are done."""
    limits: Counter[Path] = Counter()
    for item in items:
        needs_root = item.get_closest_marker("root") is not None
        limit = item.get_closest_marker("timeout")
        if limit is None and (needs_root or tree_of(item)):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
            limit = item.get_closest_marker("timeout")
        elif limit is None and item.get_closest_marker("hypothesis"):
            item.add_marker(pytest.mark.timeout(PROPERTY_SECONDS))
        if needs_root and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        limits[item.path] += int(limit.args[0]) if limit is not None else 1
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (-limits[item.path], item.path))


_IN_MODULE: dict[Path, list[pytest.Item]] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was collected stays to the end. `held` has the garbage collector look through all that is there, a
    thousand times: a quarter of a second each time, if the tests themselves are part of it."""
    for item in session.items:
        _IN_MODULE.setdefault(item.path, []).append(item)
    gc.collect()
    gc.freeze()


# --- nothing left behind -------------------------------------------------------------


def held() -> Counter[str]:
    """What this process holds and what stands in the kernel under its id, counted by comparable names."""
    gc.collect()
    pid = os.getpid()
    mine = (f"{kind} {name}" for kind, name in leftovers.things() if pid in leftovers.pids_in(name))
    return Counter([*mine, *descriptors(), *threads()])


def descriptors() -> Iterator[str]:
    """Open file descriptors: sockets, pipes, namespaces, BPF objects, epoll sets; not plain files."""
    for number in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{number}"
        try:
            if not stat.S_ISREG(os.stat(path).st_mode) or os.readlink(path).startswith("net:["):
                yield f"descriptor {os.readlink(path)}"
        except OSError:
            continue  # the listing's own


def threads() -> Iterator[str]:
    """Live threads; those that Trio keeps in store for ten seconds and the time limit's own do not count."""
    for thread in threading.enumerate():
        is_idle = thread.name.startswith("Trio thread")
        if thread is not threading.main_thread() and not is_idle and not isinstance(thread, threading.Timer):
            yield f"thread {thread.name}"


def leaks_since(before: Counter[str]) -> list[str]:
    """What is held now and was not then, after waiting a little for it to go."""
    deadline = time.monotonic() + GRACE_SECONDS
    while (leaks := sorted((held() - before).elements())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return leaks


def widest_scope(request: pytest.FixtureRequest) -> str:
    """`session`, `module` or `function`: how long the longest-lived of our fixtures in a test lives."""
    names = request.node._fixtureinfo.name2fixturedefs.items()
    ours = [definitions[-1] for name, definitions in names if not name.startswith("_nothing_leaks")]
    scopes = {definition.scope for definition in ours if definition.baseid.startswith("tests")}
    if scopes & {"session", "package"}:
        return "session"
    return "module" if scopes & {"module", "class"} else "function"


@pytest.fixture(autouse=True)
def _nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test marked `root` gives back all that it took. With a shared laboratory only the last one can."""
    if request.node.get_closest_marker("root") is None or widest_scope(request) != "function":
        yield
        return
    before = held()
    yield
    if leaks := leaks_since(before):
        pytest.fail("left behind: " + "; ".join(leaks), pytrace=False)


@pytest.fixture(autouse=True, scope="module")
def _nothing_leaks_from_a_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same for a module whose `root` tests share a laboratory of the module."""
    tests = _IN_MODULE[request.node.path]
    uses = {widest_scope(item._request) for item in tests if item.get_closest_marker("root")}
    if "module" not in uses or "session" in uses:
        yield
        return
    before = held()
    yield
    if leaks := leaks_since(before):
        pytest.fail("left behind: " + "; ".join(leaks), pytrace=False)


# --- what could not run --------------------------------------------------------------


def skipped_trees(items: list[pytest.Item], skipped: set[str]) -> list[str]:
    """The trees of which tests were chosen and not one was run."""
    chosen: dict[str, set[str]] = {}
    for item in items:
        if tree := tree_of(item):
            chosen.setdefault(tree, set()).add(item.nodeid)
    return [tree for tree, ids in chosen.items() if ids <= skipped]


def skip_reasons(terminal: pytest.TerminalReporter) -> dict[str, str]:
    """Why each skipped test was skipped, by its id."""
    reports = terminal.stats.get("skipped", [])
    return {report.nodeid: str(report.longrepr[-1]).removeprefix("Skipped: ") for report in reports}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        with suppress(OSError):  # it is not there, or somebody's pins are in it
            PINS.rmdir()  # pins are removed by the test that made them, and may have been the first ones
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or not os.environ.get("CI"):
        return
    if skipped_trees(getattr(session, "items", []), set(skip_reasons(terminal))):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = skip_reasons(terminalreporter)
    if not reasons:
        return
    terminalreporter.section("not run")
    for reason, count in Counter(reasons.values()).most_common():
        terminalreporter.write_line(f"{count:5d}  {reason}")
    session = terminalreporter._session
    for tree in skipped_trees(getattr(session, "items", []), set(reasons)):
        terminalreporter.write_line(f"{tree}: not one test was run")
