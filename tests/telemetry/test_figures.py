"""The register of figures, and tallies by label."""

from __future__ import annotations

import pytest
from prometheus_client import Counter, Histogram

from ztunnel.telemetry.figures import Family, Figures, Kind, Tally, metric


def test_a_figure_is_read_when_somebody_asks():
    figures = Figures()
    things = [1]
    figures.gauge("things", "How many.", lambda: len(things))
    figures.counter("kinds_total", "By kind.", lambda: [(("a",), 2), (("b",), 3)], ["kind"])
    things.append(2)
    assert figures.families() == [
        Family("things", "How many.", Kind.GAUGE, (), [((), 2)]),
        Family("kinds_total", "By kind.", Kind.COUNTER, ("kind",), [(("a",), 2), (("b",), 3)]),
    ]


def test_a_family_without_samples_is_left_out():
    figures = Figures()
    figures.tally("events_total", "Events.", ["kind"])
    assert figures.families() == []


def test_a_figure_of_nought_is_shown():
    figures = Figures()
    figures.gauge("things", "How many.", lambda: 0)
    assert len(figures.families()) == 1


def test_a_dropped_figure_is_gone_and_its_name_free():
    figures = Figures()
    figures.gauge("things", "How many.", lambda: 1)
    figures.drop("things")
    figures.drop("things")
    assert figures.families() == []
    figures.gauge("things", "How many.", lambda: 1)


def test_a_name_is_given_once_and_tells_the_kind():
    figures = Figures()
    figures.gauge("things", "How many.", lambda: 1)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        figures.gauge("things", "Others.", lambda: 1)
    with pytest.raises(ValueError, match="ends in _total"):
        figures.counter("events", "Events.", lambda: 1)
    with pytest.raises(ValueError, match="does not end in _total"):
        figures.gauge("things_total", "How many.", lambda: 1)


def test_a_tally_counts_by_labels():
    tally = Tally(2)
    tally.add("a", "b")
    tally.add("a", "b", by=2)
    tally.add("a", "c")
    assert tally.samples() == [(("a", "b"), 3), (("a", "c"), 1)]
    assert tally.cut == 0


def test_beyond_its_limit_a_tally_counts_under_unknown_and_loses_nothing():
    tally = Tally(1, limit=2)
    for name in ("a", "b", "c", "d", "a"):
        tally.add(name)
    assert dict(tally.samples()) == {("a",): 2, ("b",): 1, ("unknown",): 2}
    assert tally.cut == 2


def test_the_registry_is_the_librarys_and_takes_its_types_too():
    figures = Figures()
    figures.counter("kinds_total", "By kind.", lambda: [(("a",), 2)], ["kind"])
    own = Counter("own", "Own.", registry=figures)
    Histogram("seconds", "How long.", buckets=[1.0], registry=figures).observe(0.5)
    own.inc(3)
    assert figures.get_sample_value("kinds_total", {"kind": "a"}) == 2
    assert figures.get_sample_value("own_total") == 3
    assert [family.name for family in figures.families()] == ["kinds_total"]
    assert [family.name for family in figures.others()] == ["own", "seconds"]
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counter("kinds", "Again.", registry=figures)


def test_samples_are_read_one_by_one():
    figures, seen = Figures(), []

    def read():
        for name in "ab":
            seen.append(name)
            yield (name,), 1

    figures.gauge("things", "How many.", read, ["name"])
    (reading,) = figures.readings()
    samples = reading.samples()
    assert seen == []
    assert next(samples) == (("a",), 1)
    assert seen == ["a"]


def test_what_is_no_unicode_is_escaped():
    made = metric(Family("odd", "Odd.", Kind.GAUGE, ("name",), [(("\udcff",), 1), (("ä",), 2)]))
    assert [sample.labels["name"] for sample in made.samples] == ["\\udcff", "ä"]
