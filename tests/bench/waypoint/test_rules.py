"""The rules that both waypoints of the benchmark follow."""

from __future__ import annotations

from pathlib import Path

import yaml

from bench.waypoint.ground import envoy
from bench.waypoint.rules import ASKED, ROUTES, new_rules, path


def test_both_have_the_same_routes_and_know_the_same_key() -> None:
    rules = new_rules()
    ours = {one["kind"]: one["spec"] for one in yaml.safe_load_all(rules.manifests("ours")) if one}
    told = yaml.safe_load(envoy(Path("/certs"), "10.0.0.1", "10.0.0.2", rules))["static_resources"]
    main = next(one for one in told["listeners"] if one["name"] == "main_internal")
    config = main["filter_chains"][0]["filters"][0]["typed_config"]
    routes = config["route_config"]["virtual_hosts"][0]["routes"]
    prefixes = [one["match"][0]["uri"]["prefix"] for one in ours["VirtualService"]["http"][:-1]]
    assert prefixes == [one["match"]["prefix"] for one in routes[:ROUTES]]
    assert path(ASKED) in prefixes
    assert [one["name"] for one in config["http_filters"]] == ["jwt_authn", "rbac", "router"]
    provider = config["http_filters"][0]["typed_config"]["providers"]["bench"]
    (rule,) = ours["RequestAuthentication"]["jwtRules"]
    assert (provider["issuer"], provider["local_jwks"]["inline_string"]) == (rule["issuer"], rule["jwks"])


def test_a_token_is_a_field() -> None:
    name, kind, token = new_rules().header().split(" ")
    assert (name, kind, token.count(".")) == ("authorization:", "Bearer", 2)
