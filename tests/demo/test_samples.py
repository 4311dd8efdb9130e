from ztunnel.demo.samples import Sample, parse_samples

PAGE = r"""# HELP connections_total Connections.
# TYPE connections_total counter
connections_total{reporter="source",policy="a \"b\", c"} 3
connections_total{reporter="destination",policy=""} 4.5
up 1
# EOF
"""


def test_samples_are_read_with_their_labels() -> None:
    first, second, third = parse_samples(PAGE).samples
    assert first == Sample("connections_total", {"reporter": "source", "policy": r"a \"b\", c"}, 3.0)
    assert (second.labels["policy"], second.value) == ("", 4.5)
    assert third == Sample("up", {}, 1.0)


def test_a_total_is_of_the_samples_that_have_the_labels() -> None:
    samples = parse_samples(PAGE)
    assert samples.total("connections_total") == 7.5
    assert samples.total("connections_total", reporter="source") == 3.0
    assert samples.total("connections_total", reporter="nobody") == 0
    assert samples.total("down") == 0
