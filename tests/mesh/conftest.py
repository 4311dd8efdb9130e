"""Meshes: one laboratory for each module of tests, made of the module's `MANIFESTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.mesh.lab import Mesh, unique
from ztunnel.demo.operate import Laboratory


@pytest.fixture(scope="module")
def laboratory(request: pytest.FixtureRequest) -> Iterator[Laboratory]:
    """The laboratory of the module; `ENVIRONMENT` of the module is that of its node proxies; with
    `NETWORK` they have a control plane over the network."""
    with pytest.MonkeyPatch.context() as patch, Laboratory(unique()) as laboratory:
        for name, value in getattr(request.module, "ENVIRONMENT", {}).items():
            patch.setenv(name, value)
        laboratory.up(request.module.MANIFESTS, network=getattr(request.module, "NETWORK", False))
        yield laboratory


@pytest.fixture(scope="module")
def module_mesh(laboratory: Laboratory) -> Mesh:
    """The laboratory as tests use it."""
    return Mesh(laboratory)


@pytest.fixture
def mesh(module_mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[Mesh]:
    """The same for one test: lines and figures count from here, sockets are closed afterwards."""
    module_mesh.begin(settled="applied_first" not in request.fixturenames)
    try:
        yield module_mesh
    finally:
        module_mesh.finish()


@pytest.fixture
def applied(mesh: Mesh) -> Iterator[Callable[[str], None]]:
    """Apply manifests for the length of a test."""
    texts: list[str] = []

    def apply(text: str) -> None:
        texts.append(text)
        mesh.apply(text)

    yield apply
    mesh.take_back(texts[::-1])


@pytest.fixture
def applied_first(applied: Callable[[str], None]) -> Callable[[str], None]:
    """For tests that begin with it: what the test before has taken back need not have settled."""
    return applied
