"""Durations in manifests, as Go writes them (Istio) and as the Gateway API takes them (GEP-2257)."""

from __future__ import annotations

import re
from typing import Final

from ztunnel.state.field import Field

_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_GO: Final = re.compile(r"(([0-9]{1,12}(\.[0-9]{0,9})?|\.[0-9]{1,9})(h|ms|m|s|us|µs|ns))+|0")
_GATEWAY: Final = re.compile(r"([0-9]{1,5}(h|ms|m|s)){1,4}")
_PART: Final = re.compile(r"([0-9.]+)([a-zµ]+)")


def read_duration(parent: Field, name: str, least: float = 0.0) -> float | None:
    """The duration of that name of an Istio resource, in seconds; None where it is absent, or not one (Go
    time.ParseDuration) and has a fault. `least`: what it must not be shorter than."""
    return _read(parent.sub(name), _GO, "a duration: 1h, 1m, 1s or 1ms, or several of them", least)


def read_gateway_duration(parent: Field, name: str) -> float | None:
    """The same of a resource of the Gateway API, which knows no fractions."""
    return _read(parent.sub(name), _GATEWAY, "a duration: at most four whole numbers with h, m, s or ms", 0.0)


def _read(place: Field | None, form: re.Pattern[str], wanted: str, least: float) -> float | None:
    if place is None:
        return None
    text = place.as_text("0s")
    if not form.fullmatch(text):
        place.fault(f"not {wanted}: {text[:40]!r}")
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if seconds < least:
        place.fault(f"must not be shorter than {least:g} s")
        return None
    return seconds
