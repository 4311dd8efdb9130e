"""Ports under load: what is called, and how it is judged."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import yaml

from bench import ports
from bench.cells import OURS, SUSTAINED_CELLS


class Answering(ports.Pods):
    """Pods that answer as was said."""

    def __init__(self, quiet: list[float], failed: int) -> None:
        self._quiet, self._failed = quiet, failed

    def run(self, pod, seconds, words, called):
        if pod == "client":
            return [0.001] * 5, self._failed
        return [self._quiet.pop(0)], 0

    def _stand_back(self, pod):
        """There are no processes."""

    def _say_why(self):
        """Nor logs."""


@pytest.mark.parametrize(
    ("quiet", "failed", "reached"), [([1.0, 2.0], 0, True), ([1.0, 2.1], 0, False), ([1.0, 1.0], 1, False)]
)
def test_a_goal_is_reached_where_all_are_answered_and_nobody_else_feels_it(quiet, failed, reached) -> None:
    assert ports.measure(Answering(quiet, failed), 20, 1000, 1) is reached


def test_the_usual_p99_is_that_of_most_windows() -> None:
    calm, disturbed = [1.0] * 1000, [1.0] * 900 + [9.0] * 100
    assert ports.usual_p99(calm + disturbed + calm, 100) == 1
    assert ports.usual_p99(disturbed + calm + disturbed, 100) == 9
    assert ports.usual_p99(calm + calm + [9.0] * 500, 100) == 1  # a window that is not whole
    assert ports.usual_p99([2.0, 3.0], 100) == 3  # there is no other


def test_pods_stand_apart() -> None:
    pods = [each for each in yaml.safe_load_all(ports.manifests()) if each["kind"] == "Pod"]
    assert len(pods) == 3 + max(ports.PEERS)
    assert {each["spec"]["nodeName"] for each in pods} == {"node-1", "node-2"}


def test_a_percentile_is_one_of_the_values() -> None:
    assert ports.percentile([], 0.99) == 0
    assert ports.percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert ports.percentile([1.0] * 99 + [9.0], 0.99) == 9.0


def test_the_row_of_the_benchmark_is_a_ratio_or_says_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    for failed, samples in ((0, [(2.0,)]), (3, [])):
        pods = Answering([1.0, 2.0], failed)
        monkeypatch.setattr(ports, "brought_up", lambda *_, pods=pods, **__: nullcontext(pods))
        result = ports.measure_sustained(SUSTAINED_CELLS[0], 1)
        assert result.samples == {OURS: samples}
        assert bool(result.failure) is bool(failed)
