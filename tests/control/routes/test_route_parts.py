"""A problem says where it is."""

from ztunnel.control.routes.route_parts import UNRESOLVED, Problem, Why


def test_a_problem_prints_with_its_field():
    assert str(Problem(Why.REMARK, "http[0].match", "is left out")) == "http[0].match: is left out"


def test_reasons_of_references_are_those_of_the_gateway_api():
    assert {str(one) for one in UNRESOLVED} == {"BackendNotFound", "InvalidKind", "RefNotPermitted"}
