"""What is repaired is counted each time, and told of now and then."""

from __future__ import annotations

from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.repairs import QUIET_SECONDS, Repairs


class Teller:
    def __init__(self) -> None:
        self.now = 100.0
        self.lines: list[dict[str, object]] = []
        self.figures = Figures()
        self.repairs = Repairs(self.figures, self.say, lambda: self.now)

    def say(self, message: str, **fields: str | int | float | bool) -> None:
        self.lines.append(fields)

    @property
    def counts(self) -> dict[str, float]:
        return {labels[0]: value for family in self.figures.families() for labels, value in family.samples}


def test_each_is_counted_and_the_first_is_told() -> None:
    teller = Teller()
    for _ in range(5):
        teller.repairs.repaired("IPv4 rule", "shop/a")
    teller.repairs.repaired("IPv4 rule", "shop/b")
    teller.repairs.repaired("own cgroup")
    assert teller.counts == {"IPv4 rule": 6, "own cgroup": 1}
    assert teller.lines == [
        {"what": "IPv4 rule", "where": "shop/a"},
        {"what": "IPv4 rule", "where": "shop/b"},
        {"what": "own cgroup"},
    ]


def test_who_goes_on_is_told_of_again_with_how_often() -> None:
    teller = Teller()
    for _ in range(4):
        teller.repairs.repaired("IPv4 rule", "shop/a")
    teller.now += QUIET_SECONDS
    teller.repairs.repaired("IPv4 rule", "shop/a")
    teller.now += QUIET_SECONDS
    teller.repairs.repaired("IPv4 rule", "shop/a")
    assert [line.get("again", 0) for line in teller.lines] == [0, 3, 0]


def test_what_is_remembered_is_bounded() -> None:
    teller = Teller()
    for number in range(3000):
        teller.repairs.repaired("IPv4 rule", str(number))
    assert teller.counts == {"IPv4 rule": 3000}
    assert len(teller.repairs._said) <= 1000
