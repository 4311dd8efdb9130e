"""Istio's metrics of requests, as they are scraped.

`istio_requests_total` counts, `istio_request_duration_milliseconds`, `istio_request_bytes` and
`istio_response_bytes` are histograms with the buckets of Istio's Envoy; `istio_request_messages_total` and
`istio_response_messages_total` count the messages of calls of gRPC. Beyond `series_limit` label sets,
everything new goes to one whose names are all `unknown`.

Where an operator has labels changed (Telemetry), a request counts under label sets of that making, each in
some of the families. All series of a family show the same names: what one of them does not have is empty
there, which to Prometheus is a label that is not there; a name that none has is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ztunnel.telemetry.figures import unicode
from ztunnel.telemetry.request_counts import BUCKETS, FAMILIES, RequestCounts, RequestLabels, Series

_HISTOGRAMS = (
    ("istio_request_duration_milliseconds", "How long requests took"),
    ("istio_request_bytes", "Sizes of requests' bodies"),
    ("istio_response_bytes", "Sizes of responses' bodies"),
)


_MESSAGES = (
    ("istio_request_messages_total", "Messages of requests of gRPC"),
    ("istio_response_messages_total", "Messages of responses of gRPC"),
)

_GRPC = "grpc"

_PROTOCOL = RequestLabels._fields.index("request_protocol")
_OF_MESSAGES = 4

_Row = tuple[list[str], tuple[tuple[str, str], ...], Series]
"""The values of the usual labels, the others by name, and what was counted."""


class RequestMetrics(Collector):
    """What `counts` has counted; `collect` is called on any thread."""

    def __init__(self, series_limit: int = 20_000) -> None:
        self.counts = RequestCounts(series_limit)

    def describe(self) -> list[Metric]:
        """For the registry, which gives a name only once."""
        messages = [_messages(*each) for each in _MESSAGES]
        return [_requests(), *messages, *(HistogramMetricFamily(*each) for each in _HISTOGRAMS)]

    def collect(self) -> Iterator[Metric]:
        """What was counted, cumulative as the exposition formats have it."""
        rows: list[_Row] = [(_texts(each), (), series) for each, series in list(self.counts.series.items())]
        edited = list(self.counts.edited.items())
        for index in range(FAMILIES):
            shown = rows
            if index >= _OF_MESSAGES:
                shown = [row for row in rows if row[0][_PROTOCOL] == _GRPC]
            changed = [
                (_texts(each.labels), each.extra, series)
                for each, series in edited
                if each.families >> index & 1 and (index < _OF_MESSAGES or each.grpc)
            ]
            if shown or changed:
                yield _family(index, [*shown, *changed], bool(changed))


def _family(index: int, rows: list[_Row], changed: bool) -> Metric:
    """The Nth, with what was counted; `changed`: some labels are of an operator's making."""
    names: list[str] = list(RequestLabels._fields)
    values = [list(texts) for texts, _, _ in rows]
    if changed:
        names += sorted({name for _, extra, _ in rows for name, _ in extra} - set(names))
        added = names[len(RequestLabels._fields) :]
        for row, texts in zip(rows, values, strict=True):
            extra = dict(row[1])
            texts += [unicode(extra.get(name, "")) for name in added]
        kept = [at for at in range(len(names)) if any(texts[at] for texts in values)]
        names = [names[at] for at in kept]
        values = [[texts[at] for at in kept] for texts in values]
    if 0 < index < _OF_MESSAGES:
        name, help_text = _HISTOGRAMS[index - 1]
        histogram = HistogramMetricFamily(name, help_text, labels=names)
        for texts, (_, _, series) in zip(values, rows, strict=True):
            histogram.add_metric(texts, _cumulative(series.counts[index - 1]), series.sums[index - 1])
        return histogram
    family = _requests(names) if not index else _messages(*_MESSAGES[index - _OF_MESSAGES], names)
    for texts, (_, _, series) in zip(values, rows, strict=True):
        family.add_metric(texts, series.messages[index - _OF_MESSAGES] if index else series.count)
    return family


def _requests(names: Sequence[str] = RequestLabels._fields) -> CounterMetricFamily:
    name = "istio_requests_total"
    return CounterMetricFamily(name, "The total number of requests", labels=names)


def _messages(name: str, help_text: str, names: Sequence[str] = RequestLabels._fields) -> CounterMetricFamily:
    return CounterMetricFamily(name, help_text, labels=names)


def _texts(labels: RequestLabels) -> list[str]:
    return [each if each.isascii() else unicode(each) for each in labels]


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    total, found = 0, list[tuple[str, float]]()
    for bound, count in zip((*map(_bound, BUCKETS), "+Inf"), list(counts), strict=True):
        total += count
        found.append((bound, total))
    return found


def _bound(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
