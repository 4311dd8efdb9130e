"""Istio's metrics of requests over plain ints: a request costs one look-up and four additions.

`istio_requests_total` counts, `istio_request_duration_milliseconds`, `istio_request_bytes` and
`istio_response_bytes` are histograms with the buckets of Istio's Envoy; `istio_request_messages_total` and
`istio_response_messages_total` count the messages of calls of gRPC. Beyond `series_limit` label sets,
everything new goes to one whose names are all `unknown`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ztunnel.model.connection import Security
from ztunnel.telemetry.figures import unicode
from ztunnel.telemetry.labels import UNKNOWN, TcpLabels

BUCKETS = (
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0,
    300000.0, 600000.0, 1800000.0, 3600000.0,
)  # fmt: skip
"""Milliseconds and bytes alike (Envoy's default histogram buckets)."""

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


class RequestLabels(NamedTuple):
    """One label set, in Istio's order; values that are not known are `unknown`."""

    reporter: str = UNKNOWN
    source_workload: str = UNKNOWN
    source_canonical_service: str = UNKNOWN
    source_canonical_revision: str = UNKNOWN
    source_workload_namespace: str = UNKNOWN
    source_principal: str = UNKNOWN
    source_app: str = UNKNOWN
    source_version: str = UNKNOWN
    source_cluster: str = UNKNOWN
    destination_workload: str = UNKNOWN
    destination_workload_namespace: str = UNKNOWN
    destination_principal: str = UNKNOWN
    destination_app: str = UNKNOWN
    destination_version: str = UNKNOWN
    destination_service: str = UNKNOWN
    destination_canonical_service: str = UNKNOWN
    destination_canonical_revision: str = UNKNOWN
    destination_service_name: str = UNKNOWN
    destination_service_namespace: str = UNKNOWN
    destination_cluster: str = UNKNOWN
    request_protocol: str = "http"
    response_code: str = "0"
    grpc_response_status: str = ""
    response_flags: str = "-"
    connection_security_policy: str = Security.UNKNOWN.value


_PROTOCOL = RequestLabels._fields.index("request_protocol")


def request_labels(tcp: TcpLabels, protocol: str) -> RequestLabels:
    """The labels of a way's requests, without what differs between them, out of those of its connections."""
    known = tcp._asdict()
    shared = {name: known[name] for name in RequestLabels._fields if name in known}
    return RequestLabels(**{**shared, "request_protocol": protocol})


class _Series:
    """Counts and sums of one label set; for each histogram a count a bucket, the last for what is above."""

    __slots__ = ("count", "counts", "messages", "sums")

    def __init__(self) -> None:
        self.count = 0
        self.counts = [[0] * (len(BUCKETS) + 1) for _ in _HISTOGRAMS]
        self.sums = [0.0] * len(_HISTOGRAMS)
        self.messages = [0] * len(_MESSAGES)


class RequestMetrics(Collector):
    """All series of one process. `count` is called on the thread that runs Trio, `collect` on any."""

    def __init__(self, series_limit: int = 20_000) -> None:
        self._limit = series_limit
        self._series: dict[RequestLabels, _Series] = {}

    def count(
        self,
        labels: RequestLabels,
        milliseconds: float,
        received_bytes: int,
        sent_bytes: int,
        messages: tuple[int, int] | None = None,
    ) -> None:
        """A request has ended; `messages` are those of a call of gRPC, of its request and of its response."""
        series = self._series.get(labels)
        if series is None:
            series = self._new(labels)
        series.count += 1
        for index, value in enumerate((milliseconds, float(received_bytes), float(sent_bytes))):
            series.counts[index][bisect_left(BUCKETS, value)] += 1
            series.sums[index] += value
        if messages is not None:
            series.messages[0] += messages[0]
            series.messages[1] += messages[1]

    def describe(self) -> list[Metric]:
        """For the registry, which gives a name only once."""
        messages = [_messages(*each) for each in _MESSAGES]
        return [_requests(), *messages, *(HistogramMetricFamily(*each) for each in _HISTOGRAMS)]

    def collect(self) -> Iterator[Metric]:
        """What was counted, cumulative as the exposition formats have it."""
        found = [(_texts(labels), series) for labels, series in list(self._series.items())]
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

    def _new(self, labels: RequestLabels) -> _Series:
        if len(self._series) >= self._limit:
            labels = RequestLabels(labels.reporter, response_code=labels.response_code)
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series()
        return series


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
