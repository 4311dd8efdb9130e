"""RequestAuthentications of waypoints as messages of ztunnel.http, both ways.

How long a fetch may take stays with whoever fetches."""

from __future__ import annotations

from ztunnel.errors import PeerError
from ztunnel.model.jwt import ClaimHeader, JwtPolicy, JwtRule, TokenHeader
from ztunnel.xds.pb import jwt_policy_pb2 as pb


def render_jwt_policy(policy: JwtPolicy) -> pb.RequestAuthentication:
    """The message of it."""
    return pb.RequestAuthentication(
        name=policy.name, namespace=policy.namespace, rules=map(_render_rule, policy.rules)
    )


def parse_jwt_policy(untrusted: pb.RequestAuthentication) -> JwtPolicy:
    """The policy of a message. Keys that are none prove nothing, and cost the rule no more than its tokens.

    Raises:
        PeerError: it has no name, or a rule believes anybody.
    """
    if not untrusted.name or not untrusted.namespace:
        raise PeerError("a policy needs a name and a namespace")
    return JwtPolicy(untrusted.name, untrusted.namespace, tuple(map(_parse_rule, untrusted.rules)))


def _render_rule(rule: JwtRule) -> pb.JwtRule:
    return pb.JwtRule(
        issuer=rule.issuer,
        audiences=rule.audiences,
        keys=rule.keys,
        keys_url=rule.keys_url,
        headers=[pb.TokenHeader(name=one.name, prefix=one.prefix) for one in rule.headers],
        params=rule.params,
        cookies=rule.cookies,
        payload_header=rule.payload_header,
        claim_headers=[pb.ClaimHeader(header=one.header, claim=one.claim) for one in rule.claim_headers],
        forward=rule.forward,
        space_delimited=rule.space_delimited,
    )


def _parse_rule(untrusted: pb.JwtRule) -> JwtRule:
    it = untrusted
    if not all(one.name for one in it.headers) or not all(one.header for one in it.claim_headers):
        raise PeerError("a header of a rule has no name")
    return JwtRule(
        issuer=it.issuer,
        audiences=tuple(it.audiences),
        keys=it.keys,
        keys_url=it.keys_url,
        headers=tuple(TokenHeader(one.name.lower(), one.prefix) for one in it.headers),
        params=tuple(it.params),
        cookies=tuple(it.cookies),
        payload_header=it.payload_header.lower(),
        claim_headers=tuple(ClaimHeader(one.header.lower(), one.claim) for one in it.claim_headers),
        forward=it.forward,
        space_delimited=tuple(it.space_delimited),
    )
