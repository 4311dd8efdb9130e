"""What figures were taken on."""

from __future__ import annotations

from bench.machine import machine, processor


def test_a_processor_is_known_by_its_name() -> None:
    assert (
        processor("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: other\n")
        == "Some CPU @ 2 GHz"
    )
    assert processor("processor\t: 0\n") == ""
    assert machine()["cpus"]
