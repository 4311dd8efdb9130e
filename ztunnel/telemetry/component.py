"""Figures that Istio's ztunnel shows about itself, beside its connections."""

from __future__ import annotations

from prometheus_client.metrics import Counter, Gauge, Histogram

from ztunnel.telemetry.figures import Figures


def register_build(figures: Figures, version: str, component: str = "ztunnel") -> None:
    """`istio_build`: which component this is, and of which version."""
    samples = [((component, version), 1.0)]
    figures.gauge("istio_build", "Istio component build info", lambda: samples, ["component", "tag"])


class XdsFigures:
    """What came over the connection to the control plane."""

    def __init__(self, figures: Figures) -> None:
        self._connected = False
        figures.gauge(
            "ztunnel_control_plane_connected",
            "1 while the control plane answers, 0 while the world stays as it was",
            lambda: int(self._connected),
        )
        self._terminations = figures.tally(
            "istio_xds_connection_terminations_total",
            "The total number of completed connections to xds server",
            ["reason"],
        )
        self._messages = figures.tally(
            "istio_xds_message_total", "Total number of messages received", ["url"], limit=50
        )
        self._octets = figures.tally(
            "istio_xds_message_bytes_total", "Total number of bytes received", ["url"], limit=50
        )

    def received(self, type_url: str, size_bytes: int) -> None:
        """A response of the control plane with resources of this type."""
        self._connected = True
        self._messages.add(type_url)
        self._octets.add(type_url, by=size_bytes)

    def terminated(self, reason: str) -> None:
        """The connection has ended; `reason` is one of ConnectionError, Error, Reconnect, Complete."""
        self._connected = False
        self._terminations.add(reason)


ENROLL_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)


class PodFigures:
    """How many pods this node proxy serves."""

    def __init__(self, figures: Figures) -> None:
        self._active = Gauge(
            "workload_manager_active_proxy_count",
            "The total number current workloads with active proxies",
            registry=figures,
        )
        self._pending = Gauge(
            "workload_manager_pending_proxy_count",
            "The total number current workloads with pending proxies",
            registry=figures,
        )
        self._started = Counter(
            "workload_manager_proxies_started",
            "The total number of proxies that were started",
            registry=figures,
        )
        self._stopped = Counter(
            "workload_manager_proxies_stopped",
            "The total number of proxies that were stopped",
            registry=figures,
        )
        self._enrolled_after = Histogram(
            "ztunnel_pod_enroll_seconds",
            "From the first process of a pod to its enrolment, of pods that started while the proxy ran",
            buckets=ENROLL_BUCKETS,
            registry=figures,
        )
        self._misses = Counter(
            "ztunnel_pod_start_misses_total",
            "Pods of which a process called somebody before the pod was enrolled, though it was opted in",
            registry=figures,
        )

    def enrolled(self, after_seconds: float) -> None:
        """A pod that has just started is served; so long after its first process."""
        self._enrolled_after.observe(after_seconds)

    def missed(self) -> None:
        """A process of a pod that has just started was quicker."""
        self._misses.inc()

    def show(self, active: int, pending: int) -> None:
        """How many are served now, and how many cannot be yet."""
        self._active.set(active)
        self._pending.set(pending)

    def started(self) -> None:
        """A pod is served from now on."""
        self._started.inc()
        self._active.inc()

    def stopped(self) -> None:
        """A pod is not served any more."""
        self._stopped.inc()
        self._active.dec()
