"""Policies of waypoints."""

import pytest

from ztunnel.model.http_policy import CONNECTION_ATTRIBUTES, Attribute, HttpAction, HttpPolicy


def test_a_policy_is_named_as_services_name_it():
    assert HttpPolicy("p", "shop", HttpAction.DENY).key == "shop/p"


@pytest.mark.parametrize("attribute", list(Attribute))
def test_a_connection_has_no_attribute_of_http(attribute):
    http = attribute.startswith("request.") or attribute in ("hosts", "methods", "paths", "remote.ip")
    assert (attribute in CONNECTION_ATTRIBUTES) is not http
