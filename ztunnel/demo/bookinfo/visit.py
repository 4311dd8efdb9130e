"""What a visitor of the product page sees."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_SERVED_BY = re.compile(r'id="served-by">([\w.-]+)<')
_STARS = re.compile(r'class="stars (\w+)"')
_ERROR = re.compile(r'class="error">([^<]+)<')
_VERSION = re.compile(r"-(v\d)-")


@dataclass(frozen=True, slots=True)
class Visit:
    """One look at a page.

    Attributes:
        status: of the answer; 0: there was none.
        seconds: until it was there.
        pod: the pod of reviews that it names.
        color: of the stars; empty where none are shown.
        errors: what the page says of services that failed; why there was no answer.
    """

    status: int
    seconds: float
    pod: str = ""
    color: str = ""
    errors: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """Of reviews; empty where none has answered."""
        found = _VERSION.search(self.pod)
        return found[1] if found else ""


def read_page(status: int, seconds: float, html: str) -> Visit:
    """What a page says."""
    pod, stars = _SERVED_BY.search(html), _STARS.search(html)
    return Visit(
        status, seconds, pod[1] if pod else "", stars[1] if stars else "", tuple(_ERROR.findall(html))
    )


def render(visits: Sequence[Visit]) -> str:
    """As one line of JSON."""
    return json.dumps([asdict(visit) for visit in visits])


def parse(line: str) -> tuple[Visit, ...]:
    """What `render` gives."""
    return tuple(Visit(**{**each, "errors": tuple(each["errors"])}) for each in json.loads(line))


def versions(visits: Sequence[Visit]) -> Counter[str]:
    """How often each version of reviews was seen."""
    return Counter(visit.version for visit in visits)


def statuses(visits: Sequence[Visit]) -> Counter[int]:
    """How often each status was seen."""
    return Counter(visit.status for visit in visits)
