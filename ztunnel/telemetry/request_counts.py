"""Counts requests by their labels, over plain ints: a request costs four additions. What is made of that for
those who scrape is in `request_metrics`."""

from __future__ import annotations

from typing import Final, NamedTuple

from ztunnel.model.connection import Security
from ztunnel.telemetry.labels import UNKNOWN, TcpLabels

BUCKETS: Final[tuple[float, ...]] = (
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0,
    300000.0, 600000.0, 1800000.0, 3600000.0,
)  # fmt: skip
"""Milliseconds and bytes alike (Envoy's default histogram buckets). Not a tuple of so many floats: what is
compiled takes one of that type, where it is `Final`, for not set."""

_BOUNDS: Final[list[float]] = list(BUCKETS)

HISTOGRAMS, MESSAGES = 3, 2
"""Duration, bytes of the request, bytes of the response; messages of the request, and of the response."""


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


def request_labels(tcp: TcpLabels, protocol: str) -> RequestLabels:
    """The labels of a way's requests, without what differs between them, out of those of its connections."""
    known = tcp._asdict()
    shared = {name: known[name] for name in RequestLabels._fields if name in known}
    return RequestLabels(**{**shared, "request_protocol": protocol})


FAMILIES = 6
"""In the order of REQUEST_COUNT, REQUEST_DURATION, REQUEST_SIZE, RESPONSE_SIZE, GRPC_REQUEST_MESSAGES and
GRPC_RESPONSE_MESSAGES; of the Nth it is the bit 1 << N that says whether something is counted in it."""


class Edited(NamedTuple):
    """A label set of an operator's making (Telemetry): `labels`, empty where one was taken away, and `extra`
    ones by name, in order; it counts in the families of these bits."""

    labels: RequestLabels
    extra: tuple[tuple[str, str], ...] = ()
    families: int = (1 << FAMILIES) - 1
    grpc: bool = False


class Series:
    """Counts and sums of one label set; for each histogram a count a bucket, the last for what is above."""

    __slots__ = ("count", "counts", "messages", "sums")

    def __init__(self) -> None:
        self.count = 0
        self.counts = [[0] * (len(BUCKETS) + 1) for _ in range(HISTOGRAMS)]
        self.sums = [0.0] * HISTOGRAMS
        self.messages = [0] * MESSAGES

    def add(self, values: tuple[float, float, float], messages: tuple[int, int] | None) -> None:
        """A request has ended: its milliseconds, and the bytes of its two bodies; `messages` are those of a
        call of gRPC, of its request and of its response."""
        self.count += 1
        milliseconds, received, sent = values
        self._add(0, milliseconds)
        self._add(1, received)
        self._add(2, sent)
        if messages is not None:
            self.messages[0] += messages[0]
            self.messages[1] += messages[1]

    def _add(self, histogram: int, value: float) -> None:
        """Most values are in the first buckets: compiled, looking at these costs less than a bisection."""
        bucket = 0
        for bound in _BOUNDS:
            if value <= bound:
                break
            bucket += 1
        self.counts[histogram][bucket] += 1
        self.sums[histogram] += value


class RequestCounts:
    """All series of one process, at most `series_limit` of both kinds. They are counted in on the thread that
    runs Trio."""

    def __init__(self, series_limit: int = 20_000) -> None:
        self._limit = series_limit
        self.series: dict[RequestLabels, Series] = {}
        self.edited: dict[Edited, Series] = {}

    def of(self, labels: RequestLabels) -> Series:
        """Those of a label set, which whoever counts often keeps: it is there for good."""
        series = self.series.get(labels)
        return self._new(labels) if series is None else series

    def count_edited(
        self, edited: Edited, values: tuple[float, float, float], messages: tuple[int, int] | None
    ) -> None:
        """A request has ended that counts under labels that an operator has changed (`Series.add`)."""
        series = self.edited.get(edited)
        if series is None:
            if self._full():
                edited = edited._replace(labels=_unknown(edited.labels), extra=())
            series = self.edited.setdefault(edited, Series())
        series.add(values, messages)

    def _full(self) -> bool:
        return len(self.series) + len(self.edited) >= self._limit

    def _new(self, labels: RequestLabels) -> Series:
        if self._full():
            labels = _unknown(labels)
        series = self.series.get(labels)
        if series is None:
            series = self.series[labels] = Series()
        return series


def _unknown(labels: RequestLabels) -> RequestLabels:
    return RequestLabels(labels.reporter, response_code=labels.response_code)
