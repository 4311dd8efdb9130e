"""Settings by prefix."""

from __future__ import annotations

import pytest

from ztunnel.environment import read_headers, read_metadata
from ztunnel.errors import Fault


def test_headers_are_named_in_lower_case() -> None:
    faults: list[Fault] = []
    found = read_headers(
        {"XDS_HEADER_Tenant": "a", "XDS_HEADER_X-B": "c", "CA_HEADER_D": "e"}, "XDS_HEADER_", faults
    )
    assert found == (("tenant", "a"), ("x-b", "c"))
    assert not faults


@pytest.mark.parametrize(
    "variable", ["XDS_HEADER_", "XDS_HEADER_a b", "XDS_HEADER_GRPC-TIMEOUT", "XDS_HEADER_é"]
)
def test_a_header_that_is_none_is_named(variable: str) -> None:
    faults: list[Fault] = []
    assert read_headers({variable: "x"}, "XDS_HEADER_", faults) == ()
    assert [fault.field for fault in faults] == [variable]


def test_a_value_that_http_cannot_carry_is_not_shown() -> None:
    faults: list[Fault] = []
    assert read_headers({"CA_HEADER_A": "secret\n"}, "CA_HEADER_", faults) == ()
    assert "secret" not in str(faults)


def test_metadata_comes_of_three_places_the_last_wins() -> None:
    faults: list[Fault] = []
    environment = {
        "ISTIO_META_A": "1",
        "ISTIO_METAJSON_B": '{"c": [1, true]}',
        "ISTIO_METAJSON_A": "2",
        "X": "y",
    }
    found = dict(read_metadata(environment, {"P": "q", "A": "0"}, faults))
    assert found == {"P": "q", "A": 2, "B": {"c": [1, True]}}
    assert not faults


def test_what_is_no_json_is_named() -> None:
    faults: list[Fault] = []
    read_metadata({"ISTIO_METAJSON_B": "{"}, {}, faults)
    assert [fault.field for fault in faults] == ["ISTIO_METAJSON_B"]
