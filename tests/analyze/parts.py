"""Meshes out of short texts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ztunnel.analyze.finding import Finding
from ztunnel.analyze.findings import analyze
from ztunnel.analyze.load import load_mesh
from ztunnel.analyze.mesh import Mesh
from ztunnel.control.settings import MeshSettings

AMBIENT = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
"""
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
"""
OUTSIDE = WEB.replace("shop", "bank")


def mesh(*texts: str) -> Mesh:
    """The mesh of these documents, each in a file of its own."""
    with TemporaryDirectory() as folder:
        for number, text in enumerate(texts):
            (Path(folder) / f"{number}.yaml").write_text(text)
        return load_mesh([Path(folder)], MeshSettings())


def codes(*texts: str) -> list[tuple[str, str]]:
    """The codes of what is found in them, with the object."""
    return [(one.code, one.what) for one in findings(*texts)]


def findings(*texts: str) -> list[Finding]:
    """What is found in them."""
    return analyze(mesh(*texts))
