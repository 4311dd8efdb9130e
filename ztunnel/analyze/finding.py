"""One thing that is wrong or doubtful, with the code by which Istio's analyzers know it where they do.

Codes beginning with IST are those of istio/istio pkg/config/analysis/msg/messages.yaml; ZT are ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Final, NamedTuple


class Level(IntEnum):
    """How bad it is, the worst last."""

    INFO = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """As istioctl prints it."""
        return self.name.capitalize()


class Code(NamedTuple):
    """A kind of finding: its code, its name, and how bad it is."""

    code: str
    name: str
    level: Level


SCHEMA: Final = Code("IST0106", "SchemaValidationError", Level.ERROR)
MISSING: Final = Code("IST0101", "ReferencedResourceNotFound", Level.ERROR)
PORT_NAME: Final = Code("IST0118", "PortNameIsNotUnderNamingConvention", Level.INFO)
MISPLACED: Final = Code("IST0107", "MisplacedAnnotation", Level.WARNING)
PATTERN: Final = Code("IST0122", "InvalidRegexp", Level.ERROR)
TWO_MESHES: Final = Code("IST0123", "NamespaceMultipleInjectionLabels", Level.WARNING)
NO_TOKENS: Final = Code("IST0149", "JwtClaimBasedRoutingWithoutRequestAuthN", Level.ERROR)
INVALID_ANNOTATION: Final = Code("IST0125", "InvalidAnnotation", Level.WARNING)
SECOND_TELEMETRY: Final = Code("IST0160", "MultipleTelemetriesWithoutWorkloadSelectors", Level.WARNING)
NO_MATCH: Final = Code("IST0127", "NoMatchingWorkloadsFound", Level.WARNING)
NO_ADDRESSES: Final = Code("IST0134", "ServiceEntryAddressesRequired", Level.WARNING)
INEFFECTIVE: Final = Code("IST0167", "IneffectivePolicy", Level.WARNING)
REMARK: Final = Code("ZT0100", "Remark", Level.WARNING)
CONFLICT: Final = Code("IST0109", "ConflictingMeshGatewayVirtualServiceHosts", Level.WARNING)
PORT_REQUIRED: Final = Code("IST0112", "VirtualServiceDestinationPortSelectorRequired", Level.WARNING)
NO_ROOTS: Final = Code("IST0128", "NoServerCertificateVerificationDestinationLevel", Level.WARNING)
NO_ROOTS_AT_PORT: Final = Code("IST0129", "NoServerCertificateVerificationPortLevel", Level.WARNING)
UNREACHABLE: Final = Code("IST0130", "VirtualServiceUnreachableRule", Level.WARNING)
INEFFECTIVE_MATCH: Final = Code("IST0131", "VirtualServiceIneffectiveMatch", Level.INFO)
ROUTE_REFUSED: Final = Code("ZT0107", "RouteRefusesRequests", Level.ERROR)
WITHOUT_EFFECT: Final = Code("ZT0108", "RouteWithoutEffect", Level.WARNING)
STRICT_OUTSIDE: Final = Code("ZT0101", "StrictOutsideMesh", Level.WARNING)
STRICT_CLIENTS: Final = Code("ZT0102", "StrictRefusesClients", Level.INFO)
NETWORK_POLICY: Final = Code("ZT0103", "NetworkPolicyBlocksHbone", Level.WARNING)
LABELS: Final = Code("ZT0104", "MissingCanonicalLabels", Level.INFO)
NOT_IN_AMBIENT: Final = Code("ZT0105", "NotSupportedInAmbient", Level.INFO)
SEES_WAYPOINT: Final = Code("ZT0109", "PolicySeesWaypoint", Level.WARNING)
SIDECAR: Final = Code("ZT0106", "PodHasSidecar", Level.INFO)

CODES: Final = (
    SCHEMA, MISSING, PORT_NAME, NO_MATCH, NO_ADDRESSES, INEFFECTIVE, REMARK, STRICT_OUTSIDE, STRICT_CLIENTS,
    NETWORK_POLICY, LABELS, NOT_IN_AMBIENT, SIDECAR, CONFLICT, PORT_REQUIRED, NO_ROOTS, NO_ROOTS_AT_PORT,
    UNREACHABLE, INEFFECTIVE_MATCH, ROUTE_REFUSED, WITHOUT_EFFECT, SEES_WAYPOINT, MISPLACED, PATTERN,
    TWO_MESHES, INVALID_ANNOTATION, SECOND_TELEMETRY, NO_TOKENS,
)  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What is wrong with one object. `what` is its kind and name, `file` and `line` where it stands."""

    code: str
    level: Level
    what: str
    message: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f" {self.file}:{self.line}" if self.line else f" {self.file}" if self.file else ""
        return f"{self.level.word} [{self.code}] ({self.what}{place}) {self.message}"


class Suppression(NamedTuple):
    """Findings that are not to be shown: of a code, about objects whose text matches a shell pattern."""

    code: str
    pattern: str

    def covers(self, finding: Finding) -> bool:
        """Whether the finding is one of them."""
        return finding.code == self.code and fnmatchcase(finding.what, self.pattern)


def parse_suppression(text: str) -> Suppression:
    """`IST0118=Service shop/*`. Raises ValueError: not of that form, or no such code."""
    code, equals, pattern = text.partition("=")
    if not equals or not pattern:
        raise ValueError(f"{text!r} is not CODE=KIND NAMESPACE/NAME, such as 'IST0118=Service shop/*'")
    if code not in {each.code for each in CODES}:
        raise ValueError(f"no code {code!r}; there are: {', '.join(sorted(each.code for each in CODES))}")
    return Suppression(code, pattern)


def without(findings: Iterable[Finding], suppressions: Iterable[Suppression]) -> list[Finding]:
    """The findings that are to be shown, the worst first."""
    suppressions = tuple(suppressions)
    left = {one for one in findings if not any(each.covers(one) for each in suppressions)}
    return sorted(left, key=lambda one: (-one.level, one.code, one.what, one.message))
