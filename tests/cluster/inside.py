"""A Python that waits inside a pod and runs scripts there, each in a process of its own. An exec for each
takes most of a second of a core, and the tests ask for hundreds."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from tests.cluster.cluster import Cluster, ClusterError

_START_SECONDS: Final = 30.0

WAITS: Final = """
import http.client, json, os, socket, sys, traceback, urllib.request
def run(script, words):
    sys.argv = ["-c", *words]
    try:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
    except SystemExit as error:
        if error.code not in (None, 0):
            print(error.code, file=sys.stderr)
            return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
print("waits", flush=True)
for line in sys.stdin:
    files = [os.memfd_create(name) for name in ("out", "errors")]
    child = os.fork()
    if not child:
        status = 1
        try:
            for at, file in enumerate((os.open("/dev/null", os.O_RDONLY), *files)):
                os.dup2(file, at)
            status = run(*json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for file in files:
        os.lseek(file, 0, os.SEEK_SET)
        with open(file, errors="replace") as text:
            said.append(text.read())
    print(json.dumps([status, *said]), flush=True)
"""
"""A line of JSON each: script and words in, exit status and what was printed out."""


class Ended(ClusterError):
    """It does not wait any more: its container has ended, or the way there."""


class Inside:
    """One of them, of one life of a container."""

    def __init__(self, argv: Sequence[str]) -> None:
        """`argv` runs the words that are put after it in the pod. Raises ClusterError where that fails."""
        pipe = subprocess.PIPE
        words = [*argv, "python3", "-c", WAITS]
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        self._read = b""
        try:
            first = self._line(_START_SECONDS)
        except ClusterError:
            self.close()
            raise
        if first != b"waits":
            self.close()
            raise ClusterError(f"{' '.join(argv)}: said {first!r} first")

    def run(self, script: str, words: Sequence[object], seconds: float) -> str:
        """What a script printed, to whose `sys.argv[1:]` the words go. Raises ClusterError where it fails or
        takes longer; Ended where it may not even have begun."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([script, [str(each) for each in words]]).encode() + b"\n")
        except (OSError, ValueError) as error:  # ValueError: it was closed
            raise Ended(str(error)) from error
        status, out, errors = json.loads(self._line(seconds))
        if status:
            raise ClusterError(f"a script in a pod: exit {status}\n{(out + errors)[-3000:]}")
        return str(out)

    def close(self) -> None:
        """It waits no more; what it runs ends with its pod."""
        self._process.kill()
        self._process.communicate()

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._read:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise ClusterError(f"a script in a pod: nothing within {seconds:.0f} s")
            if not (part := os.read(self._process.stdout.fileno(), 1 << 16)):
                errors = self._process.communicate()[1].decode(errors="replace")
                raise Ended(f"what runs scripts in a pod has ended: {errors[-3000:]}")
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line


class Insides:
    """Those of the pods of one namespace, by name. A pod that comes again under its name is another one."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._waiting: dict[str, tuple[str, Inside]] = {}

    def run(self, pod: str, script: str, words: Sequence[object], seconds: float) -> str:
        """As `Inside.run`. Where what waits there has ended a new one is asked."""
        uid = str(self._cluster.get("pod", pod, self._namespace)["metadata"]["uid"])
        known, waiting = self._waiting.get(pod, ("", None))
        if waiting is not None and known == uid:
            try:
                return waiting.run(script, words, seconds)
            except Ended:
                pass
            except ClusterError:
                # One that is late would answer the next question.
                self._drop(pod)
                raise
        self._drop(pod)
        made = Inside(self._cluster.exec_words(self._namespace, pod))
        self._waiting[pod] = uid, made
        return made.run(script, words, seconds)

    def close(self) -> None:
        for pod in list(self._waiting):
            self._drop(pod)

    def _drop(self, pod: str) -> None:
        _, waiting = self._waiting.pop(pod, ("", None))
        if waiting is not None:
            waiting.close()
