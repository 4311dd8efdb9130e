"""One laboratory, as the command line, the claims and the tests of whole meshes operate it.

What a laboratory is stands in its completed manifests and in the names of what it made; an object of this
class only holds on to the processes that it started. One process may bring it up, another take it down.
"""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ztunnel.demo import command, control, find, run, wait
from ztunnel.demo.advice import advice
from ztunnel.demo.assign import Objects
from ztunnel.demo.build import clear_namespaces
from ztunnel.demo.call import get
from ztunnel.demo.capture import Capture, capture
from ztunnel.demo.check import check
from ztunnel.demo.cluster import Cluster, Node, Pod, Service, cluster, read_cluster
from ztunnel.demo.destroy import destroy
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.load import Loaded, load, sort_out
from ztunnel.demo.lookup import key_named, node_named, pod_named, service_named
from ztunnel.demo.manifest import Manifest, parse
from ztunnel.demo.names import Names
from ztunnel.demo.outcome import check_completed, outcome
from ztunnel.demo.publish import locked
from ztunnel.demo.replace import first_node, replace, start_proxies, start_proxy
from ztunnel.demo.schedule import complete, relabel, remove
from ztunnel.demo.store import path_of, read_store, remove_files
from ztunnel.demo.survey import Survey, survey
from ztunnel.errors import ConfigError

BUNDLED = Path(__file__).parent / "app"


class Laboratory:
    """Nodes and pods of one name. `with Laboratory(...)` takes it down at the end, whatever happened."""

    def __init__(self, name: str = "lab") -> None:
        """Touches nothing yet.

        Raises:
            ConfigError: not a name for a laboratory.
            Unsupported: this machine cannot hold one.
        """
        self.names = Names(name, check())
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(
        self, source: Path | str | Loaded = BUNDLED, *, start_nodes: bool = True, network: bool = False
    ) -> Cluster:
        """Make everything, start the node proxies, wait until each is ready, then start the pods.

        Args:
            source: a file or directory of manifests, their text, or what `load` made of any.
            start_nodes: without node proxies the pods are plain.
            network: one control plane for all nodes, over the network, instead of one in each proxy.

        Raises:
            ConfigError: the manifests are wrong; nothing was made.
            LaboratoryFailed: no pod comes of them, there is one of this name, or a part did not start;
                nothing is left behind.
        """
        loaded = source if isinstance(source, Loaded) else _load(source)
        with locked(self.names):
            self._refuse_a_second()
            after = complete({}, loaded.manifests, _new_uid)
            plan = cluster(after)
            check_completed({}, after)
            if not plan.pods:
                raise LaboratoryFailed(_no_pods(loaded))
            try:
                self.names.directory.mkdir(parents=True)
                if not start_nodes:
                    self.names.plain.touch()
                if network:
                    self.names.control.mkdir()
                replace(self.names, {}, after, self._children)
                self.names.whole.touch()
            except BaseException:
                self._take_down()
                raise
            return self.cluster()

    def down(self) -> bool:
        """Remove every trace; whether there was one. A crashed laboratory is found by its names."""
        with locked(self.names):
            return self._take_down()

    def apply(self, text: str, file: str = "<text>", *, delete: bool = False) -> list[str]:
        """Add and change the objects of a text, or delete them; new pods are started, removed ones stopped.

        Returns:
            A line for each: `Pod shop/orders-1 added`, or `changed`, `restarted`, `unchanged`, `removed`.

        Raises:
            ConfigError: the text is wrong; nothing was changed.
            LaboratoryFailed: an object to delete is not there, or the change cannot be carried out: all is as
                it was.
        """
        return self.apply_all(sort_out(parse(text, file)).manifests, delete=delete)

    def apply_all(self, given: Sequence[Manifest], *, delete: bool = False) -> list[str]:
        """As `apply`, for manifests that are parsed already."""
        with locked(self.names):
            before = self.objects()
            keys = [manifest.key for manifest in given]
            if delete:
                unread = [key for key in keys if key not in before and path_of(self.names, key).exists()]
                if missing := [key for key in keys if key not in before and key not in unread]:
                    raise LaboratoryFailed(f"not in the laboratory: {', '.join(map(str, missing))}")
                after = remove(before, keys, _new_uid)
                remove_files(self.names, unread)
                pods = [self.names.pod(key.namespace, key.name) for key in unread if key.kind == "Pod"]
                clear_namespaces(self.names, pods)
            else:
                after = self._completed(before, given)
            change = replace(self.names, before, after, self._children)
        return [f"{key} {outcome(key, before, after, change)}" for key in keys]

    def _completed(self, before: Objects, given: Sequence[Manifest]) -> Objects:
        """What `given` makes of `before`, checked. Raises ConfigError."""
        after = complete(before, given, _new_uid)
        faults = read_cluster(after)[1].items() - read_cluster(before)[1].items()
        if faults:
            raise ConfigError(*sorted(fault for _, fault in faults))
        check_completed(before, after)
        return after

    def label(self, kind: str, name: str, changes: Mapping[str, str | None]) -> None:
        """Set labels of an object, or remove them where the value is None; `name` is `[namespace/]name`.

        Raises:
            LaboratoryFailed: no such object.
        """
        with locked(self.names):
            before = self.objects()
            manifest = relabel(before[key_named(before, kind, name)], dict(changes))
            replace(self.names, before, self._completed(before, [manifest]), self._children)

    def exec(self, pod: str, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a pod (`[namespace/]name`) to its end; `options` are those of `subprocess.run`.

        Output is captured as text unless the options say otherwise.
        """
        known: dict[str, Any] = {"text": True, "stdin": subprocess.DEVNULL, "check": False}
        if not options.keys() & {"stdout", "stderr", "capture_output"}:
            known["capture_output"] = True
        if "input" in options:
            del known["stdin"]
        words, environment = self.command_in(pod, argv)
        return subprocess.run(words, env=environment, **{**known, **options})

    def popen(self, pod: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command in a pod; the caller waits for it, `down` ends it."""
        words, environment = self.command_in(pod, argv)
        return subprocess.Popen(words, env=environment, **options)

    def command_in(self, pod: str, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment by which `argv` runs in a pod."""
        found = self.pod(pod)
        return command.in_pod(self.names, found, argv), command.pod_environment(found)

    def exec_node(self, node: str, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as a process of a node, as its kubelet would; output is captured as text."""
        cgroup = self.names.node_cgroup(self.node(node).name)
        words = command.in_node(self.names, node, cgroup, argv)
        environment = command.node_environment(os.environ)
        known: dict[str, Any] = {"text": True, "capture_output": True, "check": False, "env": environment}
        return subprocess.run(words, **{**known, **options})

    def start_node(self, node: str) -> None:
        """Start a node's proxy and wait until it is ready. Raises LaboratoryFailed with its log's tail."""
        found = self.node(node)
        if run.processes(self.names.proxy_cgroup(node)):
            raise LaboratoryFailed(f"the proxy of {node} runs already")
        start_proxies(self.names, (found,), self._children)

    def restart_node(self, node: str, *, kill: bool = False) -> None:
        """Replace a node's proxy as a rolling update does: a new one takes over while the old one runs, which
        then ends. With `kill` the old one is killed first. There need not have been any.

        Raises:
            LaboratoryFailed: the new one is not ready, and the old one serves; or the old one does not end.
        """
        found = self.node(node)
        cgroup = self.names.proxy_cgroup(found.name)
        with locked(self.names):
            if kill and run.send(cgroup, signal.SIGKILL):
                wait.until_gone(cgroup)
            before = run.processes(cgroup)
            started = start_proxy(self.names, found)
            self._children.append(started)
            if before:
                wait.until_taken_over(self.names, found, started)
            wait.until_ready(self.names, [(found, started)])
            run.end_processes(before)
            wait.until_ended(cgroup, before)

    def kill_node(self, node: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a node's proxy; for SIGKILL, return when it is gone."""
        cgroup = self.names.proxy_cgroup(self.node(node).name)
        if not run.send(cgroup, number):
            raise LaboratoryFailed(
                f"no proxy runs on {node}; its log: {self.names.node_directory(node) / 'log'}"
            )
        if number == signal.SIGKILL:
            wait.until_gone(cgroup)

    def kill_control(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the control plane over the network, and return when it is gone."""
        if not run.send(self.names.control_cgroup, number):
            raise LaboratoryFailed(f"no control plane runs; its log: {self.names.control / 'log'}")
        wait.until_gone(self.names.control_cgroup)

    def start_control(self) -> None:
        """Start the control plane over the network again. Raises LaboratoryFailed with its log's tail."""
        self._children.append(control.start(self.names, first_node(self.names)))

    def node_get(self, node: str, path: str, port: int = 15000, method: str = "GET") -> str:
        """The body of an HTTP answer from inside a node's namespace, whatever its status."""
        return get(self.names.netns(self.names.node(self.node(node).name)), port, path, method)[1]

    def node_log(self, node: str) -> str:
        """All that a node's proxy wrote since the laboratory came up."""
        return _read(self.names.node_directory(self.node(node).name) / "log")

    def pod_log(self, pod: str) -> str:
        """All that a pod wrote."""
        found = self.pod(pod)
        return _read(self.names.pod_log(found.namespace, found.name))

    def capture(self) -> AbstractContextManager[Capture]:
        """Capture the link between the nodes for the length of a `with` block."""
        return capture(self.names.netns(self.names.fabric))

    def objects(self) -> Objects:
        """The completed objects as they stand.

        Raises:
            LaboratoryFailed: there is no such laboratory.
        """
        if not self.names.whole.exists():
            self._refuse_a_second()
            others = find.laboratories(self.names.cgroup2)
            known = f" (there are: {', '.join(others)})" if others else ""
            makes = f"`{self._command('up')}` makes it"
            raise LaboratoryFailed(f"there is no laboratory {self.names.lab!r}{known}: {makes}")
        return read_store(self.names).objects

    def advice(self) -> tuple[str, ...]:
        """What is to know about the objects as they stand: what is not enforced, or means something else."""
        return advice(self.objects())

    def cluster(self) -> Cluster:
        """What runs, with all addresses; stored objects that have a fault are left out."""
        return read_cluster(self.objects())[0]

    def pod(self, name: str) -> Pod:
        """A pod by `namespace/name`, or by a name that only one namespace has. Raises LaboratoryFailed."""
        return pod_named(self.cluster(), name)

    def node(self, name: str) -> Node:
        """A node by its name. Raises LaboratoryFailed."""
        return node_named(self.cluster(), name)

    def service(self, name: str) -> Service:
        """A service by `namespace/name`. Raises LaboratoryFailed."""
        return service_named(self.cluster(), name)

    def survey(self) -> Survey:
        """The state of every node and pod, and what is wrong in the stored objects."""
        self.objects()  # says so where there is no laboratory
        return survey(self.names, read_store(self.names))

    def _command(self, verb: str) -> str:
        name = "" if self.names.lab == "lab" else f" --name {self.names.lab}"
        return f"ztunnel demo {verb}{name}"

    def _refuse_a_second(self) -> None:
        if not find.exists(self.names):
            return
        whole = self.names.whole.exists()
        state = "is already up" if whole else "was left half-made"
        more = f"; `{self._command('apply')} -f FILE` changes it" if whole else ""
        raise LaboratoryFailed(
            f"laboratory {self.names.lab!r} {state}: `{self._command('down')}` removes it{more}"
        )

    def _take_down(self) -> bool:
        there = destroy(self.names)
        for child in self._children:
            child.wait()
        self._children.clear()
        return there


def _new_uid() -> str:
    return str(uuid.uuid4())


def _read(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


def _load(source: Path | str) -> Loaded:
    return load([source]) if isinstance(source, Path) else sort_out(parse(source, "<text>"))


def _no_pods(loaded: Loaded) -> str:
    read = f"{len(loaded.manifests)} objects were read"
    left_out = f", {len(loaded.left_out)} were not" if loaded.left_out else ""
    return f"no pod comes of these manifests ({read}{left_out}): give Pods, Deployments or the like"
