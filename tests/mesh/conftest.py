"""Meshes: one laboratory for each module of tests, made of the module's `MANIFESTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.mesh.lab import Mesh, unique
from ztunnel.demo.operate import Laboratory


@pytest.fixture(scope="module")
def laboratory(request: pytest.FixtureRequest) -> Iterator[Laboratory]:
    """The laboratory of the module; `ENVIRONMENT` of the module is that of its node proxies."""
    with pytest.MonkeyPatch.context() as patch, Laboratory(unique()) as laboratory:
        for name, value in getattr(request.module, "ENVIRONMENT", {}).items():
            patch.setenv(name, value)
        laboratory.up(request.module.MANIFESTS)
        yield laboratory


@pytest.fixture
def mesh(laboratory: Laboratory) -> Iterator[Mesh]:
    """The same for one test: lines and figures count from here, sockets are closed afterwards."""
    mesh = Mesh(laboratory)
    mesh.begin()
    try:
        yield mesh
    finally:
        mesh.finish()


@pytest.fixture
def applied(mesh: Mesh) -> Iterator[Callable[[str], None]]:
    """Apply manifests for the length of a test."""
    texts: list[str] = []

    def apply(text: str) -> None:
        mesh.apply(text)
        texts.append(text)

    yield apply
    for text in reversed(texts):
        mesh.laboratory.apply(text, delete=True)
    if texts:
        mesh.settle()
