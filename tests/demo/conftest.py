"""Laboratories with names that no other test run has."""

import itertools
import os
import textwrap
from collections.abc import Callable, Iterator

import pytest

from ztunnel.demo.operate import Laboratory

_COUNTER = itertools.count()

TEXT = """
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: t}
spec: {nodeName: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: t, labels: {app: web}}
spec: {nodeName: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: t, labels: {app: web}}
spec: {nodeName: node-2}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: t}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


@pytest.fixture
def new_name() -> Callable[[], str]:
    return lambda: f"t{os.getpid()}x{next(_COUNTER)}"


@pytest.fixture
def new_laboratory(new_name: Callable[[], str]) -> Iterator[Callable[[], Laboratory]]:
    made: list[Laboratory] = []

    def new() -> Laboratory:
        made.append(Laboratory(new_name()))
        return made[-1]

    yield new
    for laboratory in made:
        laboratory.down()


@pytest.fixture
def laboratory(new_laboratory: Callable[[], Laboratory]) -> Laboratory:
    return new_laboratory()


@pytest.fixture
def plain(laboratory: Laboratory) -> Laboratory:
    """Three plain pods on two nodes, and a service of two of them."""
    laboratory.up(TEXT, start_nodes=False)
    return laboratory


@pytest.fixture(scope="module")
def standing() -> Iterator[Laboratory]:
    """The same for a module; who uses it leaves it as it was."""
    with Laboratory(f"t{os.getpid()}x{next(_COUNTER)}") as laboratory:
        laboratory.up(TEXT, start_nodes=False)
        yield laboratory


@pytest.fixture
def text() -> str:
    return textwrap.dedent(TEXT)
