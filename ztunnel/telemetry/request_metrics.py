"""Istio's metrics of requests, as they are scraped.

`istio_requests_total` counts, `istio_request_duration_milliseconds`, `istio_request_bytes` and
`istio_response_bytes` are histograms with the buckets of Istio's Envoy; `istio_request_messages_total` and
`istio_response_messages_total` count the messages of calls of gRPC. Beyond `series_limit` label sets,
everything new goes to one whose names are all `unknown`.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ztunnel.telemetry.figures import unicode
from ztunnel.telemetry.request_counts import BUCKETS, RequestCounts, RequestLabels

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
        found = [(_texts(labels), series) for labels, series in list(self.counts.series.items())]
        if not found:
            return
        requests = _requests()
        for texts, series in found:
            requests.add_metric(texts, series.count)
        yield requests
        grpc = [(texts, series) for texts, series in found if texts[_PROTOCOL] == _GRPC]
        for index, each in enumerate(_MESSAGES if grpc else ()):
            counted = _messages(*each)
            for texts, series in grpc:
                counted.add_metric(texts, series.messages[index])
            yield counted
        for index, (name, help_text) in enumerate(_HISTOGRAMS):
            family = HistogramMetricFamily(name, help_text, labels=RequestLabels._fields)
            for texts, series in found:
                family.add_metric(texts, _cumulative(series.counts[index]), series.sums[index])
            yield family


def _requests() -> CounterMetricFamily:
    name = "istio_requests_total"
    return CounterMetricFamily(name, "The total number of requests", labels=RequestLabels._fields)


def _messages(name: str, help_text: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, help_text, labels=RequestLabels._fields)


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
