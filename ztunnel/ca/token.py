"""Bearer tokens: where a call has one, what it says of itself, what a TokenReview says of it, and a file of
them.

What a token says of itself proves nothing. It is read to refuse in plain words, and without asking the API
server, what that would refuse anyway: tokens for somebody else, and expired ones."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import json
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from ztunnel.ca.caller import Caller, Proof, Reason, Refused, identity_of
from ztunnel.errors import ConfigError, Fault

MAX_CHARACTERS: Final = 16_384
"""Of a token; those of Kubernetes have some 1,200."""

_ACCOUNT = "system:serviceaccount:"
_NODE = "system:node:"
_EXTRA = "authentication.kubernetes.io/"
_SKEW_SECONDS = 30.0
_MIN_SECRET = 16  # characters of a static token: fewer can be guessed


class Claims(NamedTuple):
    """What a token says of itself, unproved. `expires` is Unix time; None where it does not say."""

    audiences: tuple[str, ...]
    expires: float | None


def bearer(metadata: Mapping[str, str]) -> str:
    """The token of a call; empty where it has none.

    Raises:
        Refused: an authorization of another kind, or something that can be no token.
    """
    value = metadata.get("authorization", "")
    if not value:
        return ""
    scheme, _, token = value[: MAX_CHARACTERS + 16].partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Refused(Reason.BAD_TOKEN, "the metadata 'authorization' has no bearer token")
    if len(value) > MAX_CHARACTERS:
        raise Refused(Reason.BAD_TOKEN, f"a token of {len(value)} characters; {MAX_CHARACTERS} are accepted")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Refused(Reason.BAD_TOKEN, "the bearer token has characters that none has")
    return token


def hashed(token: str) -> bytes:
    """What a token is remembered by."""
    return hashlib.sha256(token.encode()).digest()


def read_claims(untrusted: str) -> Claims:
    """What a token of Kubernetes says of itself.

    Raises:
        Refused: it is not a JSON Web Token.
    """
    try:
        head, body, signature = untrusted.split(".")
        if not head or not signature:
            raise ValueError("a part is empty")
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        said = claims.get("aud", ())
        expires = claims.get("exp")
    except (ValueError, AttributeError, RecursionError, binascii.Error) as error:
        raise Refused(
            Reason.BAD_TOKEN, "the bearer token is no JSON Web Token of a service account"
        ) from error
    audiences = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    numeric = isinstance(expires, int | float) and not isinstance(expires, bool)
    return Claims(tuple(str(one) for one in audiences), float(expires) if numeric else None)


def check_claims(claims: Claims, audiences: Collection[str], now: float) -> None:
    """Refuse what nobody would accept.

    Args:
        now: Unix time; clocks may differ by half a minute, the API server's decides.

    Raises:
        Refused: for another audience, or expired.
    """
    if not set(claims.audiences) & set(audiences):
        named = ", ".join(one[:80] for one in claims.audiences[:4]) or "nobody"
        wanted = " or ".join(audiences)
        raise Refused(Reason.WRONG_AUDIENCE, f"the token is for {named}; it has to be for {wanted}")
    if claims.expires is not None and claims.expires + _SKEW_SECONDS < now:
        raise Refused(Reason.EXPIRED_TOKEN, f"the token expired {now - claims.expires:.0f} s ago")


def read_review(status: Mapping[str, Any], audiences: Collection[str], trust_domain: str) -> Caller:
    """Whom the API server says a token to be: the `status` of a TokenReview.

    Raises:
        Refused: nobody, for another audience, or no service account.
    """
    if status.get("authenticated") is not True:
        said = " ".join(str(status.get("error") or "").split())[:200]
        reason = Reason.EXPIRED_TOKEN if "expired" in said else Reason.BAD_TOKEN
        raise Refused(reason, f"the API server does not know the token{said and f': {said}'}")
    # An API server that does not look at audiences returns none: then the token may be for anybody.
    if not set(_texts(status.get("audiences"))) & set(audiences):
        raise Refused(
            Reason.WRONG_AUDIENCE,
            f"the API server does not say that the token is for {' or '.join(audiences)}",
        )
    user = _mapping(status.get("user"))
    name, extra = str(user.get("username") or ""), _mapping(user.get("extra"))
    namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
    if not name.startswith(_ACCOUNT) or not namespace or not account:
        raise Refused(Reason.NO_ACCOUNT, f"the token is of {name[:80]!r}, which is no service account")
    pod, uid, node = (_first(extra, f"{_EXTRA}{key}") for key in ("pod-name", "pod-uid", "node-name"))
    return Caller(identity_of(trust_domain, namespace, account), Proof.TOKEN, pod, uid, node)


def read_static_tokens(text: str, file: str, trust_domain: str, node_account: str) -> dict[bytes, Caller]:
    """A file of tokens in kube-apiserver's form (`--token-auth-file`): `token,user,uid,"group,group"`.

    The user is a service account, `system:serviceaccount:<namespace>:<name>`, or a node's proxy,
    `system:node:<node>`: that one may ask for the identities of the pods on its node.

    Args:
        node_account: `namespace/name`, the account of node proxies.

    Returns:
        By the SHA-256 of the token.

    Raises:
        ConfigError: each line that is wrong.
    """
    faults: list[Fault] = []
    found: dict[bytes, Caller] = {}
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    try:
        for row in reader:
            if not row or row[0].startswith("#"):
                continue
            try:
                token, caller = _read_row(row, trust_domain, node_account)
            except Refused as error:
                faults.append(Fault(file, reader.line_num, "", str(error)))
                continue
            if found.setdefault(hashed(token), caller) != caller:
                faults.append(
                    Fault(file, reader.line_num, "", "a token that another line gives to somebody else")
                )
    except csv.Error as error:
        faults.append(Fault(file, reader.line_num, "", f"not a line of a token file: {error}"))
    if faults:
        raise ConfigError(*faults)
    return found


def _read_row(row: list[str], trust_domain: str, node_account: str) -> tuple[str, Caller]:
    if len(row) < 3:
        raise Refused(Reason.BAD_TOKEN, f"{len(row)} fields; token, user and uid are needed")
    token, user = row[0].strip(), row[1].strip()
    if not _MIN_SECRET <= len(token) <= MAX_CHARACTERS or not token.isascii() or not token.isprintable():
        raise Refused(Reason.BAD_TOKEN, f"a token has {_MIN_SECRET} or more printable characters")
    if user.startswith(_NODE) and len(user) > len(_NODE):
        namespace, _, account = node_account.partition("/")
        identity = identity_of(trust_domain, namespace, account)
        return token, Caller(identity, Proof.STATIC_TOKEN, node=user.removeprefix(_NODE))
    namespace, _, account = user.removeprefix(_ACCOUNT).partition(":")
    if not user.startswith(_ACCOUNT) or not account:
        raise Refused(
            Reason.NO_ACCOUNT,
            f"the user {user[:80]!r} is neither {_ACCOUNT}<namespace>:<name> nor {_NODE}<node>",
        )
    return token, Caller(identity_of(trust_domain, namespace, account), Proof.STATIC_TOKEN)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _first(extra: Mapping[str, Any], key: str) -> str:
    return next(iter(_texts(extra.get(key))), "")
