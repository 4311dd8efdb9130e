"""What becomes of requests for certificates: counted under istiod's names, and each refusal logged with its
cause."""

from __future__ import annotations

from ztunnel.ca.caller import UNAUTHENTICATED, Caller, Reason, Refused
from ztunnel.control.source.report import Log
from ztunnel.model.identity import SpiffeId
from ztunnel.telemetry.figures import Figures, Sample
from ztunnel.telemetry.gathering import Gathering

_NOT_ALLOWED = frozenset(
    (Reason.WRONG_ACCOUNT, Reason.UNKNOWN_POD, Reason.OTHER_NODE, Reason.OTHER_TRUST_DOMAIN)
)


class Issuance:
    """Counts and says. istiod's counters have no `_total` at their end, so they are gauges here that only
    grow: dashboards ask for them by their names (istio/istio security/pkg/server/ca/monitoring.go)."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._gathering = Gathering()
        self._asked = 0
        self._issued = 0
        self._counts = dict.fromkeys(Reason, 0)

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.gauge("citadel_server_csr_count", "Requests for certificates", lambda: self._asked)
        figures.gauge(
            "citadel_server_success_cert_issuance_count", "Certificates issued", lambda: self._issued
        )
        figures.gauge(
            "citadel_server_authentication_failure_count",
            "Requests of callers that are not known, or may not have what they ask for",
            lambda: sum(self._counts[each] for each in UNAUTHENTICATED | _NOT_ALLOWED),
        )
        figures.gauge(
            "citadel_server_csr_parsing_err_count",
            "Requests that make no sense",
            lambda: self._counts[Reason.BAD_REQUEST],
        )
        figures.gauge(
            "citadel_server_csr_sign_err_count",
            "Requests that could not be signed",
            self._sign_errors,
            ["error"],
        )
        figures.counter(
            "ztunnel_certificate_refusals_total",
            "Requests for certificates that were refused",
            lambda: [((str(reason),), count) for reason, count in self._counts.items() if count],
            ["reason"],
        )

    def asked(self) -> None:
        """A request has come."""
        self._asked += 1

    def issued(self, caller: Caller, identity: SpiffeId) -> None:
        """It was signed."""
        self._issued += 1

    def refused(
        self, refused: Refused, source: str, caller: Caller | None, identity: SpiffeId | None, now: float
    ) -> None:
        """It was refused; `source` is the address that it came from, `now` monotonic."""
        self._counts[refused.reason] += 1
        fields: dict[str, str | int] = {"reason": str(refused.reason), "source": source}
        if caller is not None:
            fields |= {"caller": str(caller), "proof": str(caller.proof)}
        if identity is not None:
            fields["identity"] = str(identity)
        fields["error"] = str(refused)

        def line(count: int) -> None:
            self._log.warn("certificate refused", **fields, **({"times": count} if count > 1 else {}))

        self._gathering.write((refused.reason, source), line, now)

    def flush(self, now: float) -> None:
        """Write what was held back. To be called about once a second."""
        self._gathering.flush(now)

    def _sign_errors(self) -> list[Sample]:
        count = self._counts[Reason.SIGNING_FAILED]
        return [(("CA_NOT_READY",), count)] if count else []
