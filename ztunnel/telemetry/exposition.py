"""The text that Prometheus scrapes: the classic format 0.0.4 and OpenMetrics 1.0.

prometheus_client writes it, but for the families of `TcpLabels`: a sample of theirs has 27 labels, for which
the library takes 32 us; with the labels of a series escaped once it is 1 us. At 1,000 series in five families
that is the difference between 150 ms and 5 ms of a core per scrape. Both write the same text, and the tests
hold one against the other.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ and the OpenMetrics 1.0 specification.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.registry import Collector

from ztunnel.telemetry.figures import unicode

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class _Taken(Collector):
    """Families that were read already, for the library to write."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def render(families: Sequence[Metric], open_metrics: bool) -> bytes:
    """The families as text, with the end of the whole where the format has one."""
    taken = _Taken(families)
    if open_metrics:
        made: bytes = generate_open_metrics(taken)
        return made
    # What Prometheus does not ask for; with it come an HTTP server and a client, 1.5 MiB.
    from prometheus_client.exposition import generate_latest as generate_text

    return generate_text(taken)


def label_text(names: Sequence[str], values: Sequence[str]) -> str:
    """`{name="value",...}` in the order of the names with the values escaped; nothing without labels."""
    if not names:
        return ""
    pairs = sorted(zip(names, values, strict=True))
    return "{" + ",".join([f'{name}="{_escape(value)}"' for name, value in pairs]) + "}"


def counter_head(name: str, help_text: str, open_metrics: bool) -> str:
    """The HELP and TYPE lines of a counter. OpenMetrics names it without `_total`."""
    if open_metrics:
        name = name.removesuffix("_total")
    return f"# HELP {name} {help_text}\n# TYPE {name} counter\n"


def accepts(header: str, name: str) -> bool:
    """Whether an `Accept` or `Accept-Encoding` header names it, with a weight other than zero."""
    for part in header.lower().split(","):
        offered, *parameters = (piece.strip() for piece in part.split(";"))
        if offered == name:
            weights = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
            return not any(weight.strip("0") in ("", ".") for weight in weights)
    return False


def _escape(value: str) -> str:
    if not value.isascii():
        value = unicode(value)
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value
