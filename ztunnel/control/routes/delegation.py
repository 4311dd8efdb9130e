"""A VirtualService whose rules others have: delegates, merged as istiod merges them (istio/istio
pilot/pkg/model/virtualservice.go, mergeHTTPRoute).

A rule of a delegate stands under those of the root's matches whose requests include its own; one that stands
under none is left out. Of all else the delegate's counts where it says it, and the root's where it does
not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ztunnel.model.route_match import FieldMatch, TextKind, TextMatch
from ztunnel.state.virtual_match import RequestMatch, Sources
from ztunnel.state.virtual_service import RequestRule


def merged(root: RequestRule, delegate: RequestRule) -> RequestRule | None:
    """The delegate's rule under the root's; None where it conflicts with it."""
    matches = tuple(_matches(root.matches, delegate.matches))
    if not matches and (root.matches or delegate.matches):
        return None
    has_headers = delegate.edits is not None
    return RequestRule(
        _joined(root.name, delegate.name),
        matches,
        delegate.targets,
        delegate.response,
        None,
        delegate.rewrite or root.rewrite,
        root.timeout if delegate.timeout is None else delegate.timeout,
        delegate.retries or root.retries,
        delegate.fault or root.fault,
        root.mirrors if delegate.mirrors is None else delegate.mirrors,
        delegate.cors or root.cors,
        delegate.edits if has_headers else root.edits,
        delegate.authority if has_headers else root.authority,
    )


def _joined(root: str, name: str) -> str:
    return f"{root}-{name}" if root and name else root or name


def _matches(roots: tuple[RequestMatch, ...], leaves: tuple[RequestMatch, ...]) -> Iterator[RequestMatch]:
    """Nothing where one of the leaves stands under none of the roots."""
    if not roots or not leaves:
        yield from roots or leaves
        return
    found = [[_match(root, leaf) for root in roots if not _conflict(root, leaf)] for leaf in leaves]
    if all(found):
        for each in found:
            yield from each


def _match(root: RequestMatch, leaf: RequestMatch) -> RequestMatch:
    ours, theirs = root.match, leaf.match
    return RequestMatch(
        replace(
            theirs,
            name=_joined(ours.name, theirs.name),
            ports=theirs.ports or ours.ports,
            path=theirs.path or ours.path,
            method=theirs.method or ours.method,
            scheme=theirs.scheme or ours.scheme,
            authority=theirs.authority or ours.authority,
            headers=tuple(_fields(ours.headers, theirs.headers)),
            query=tuple(_fields(ours.query, theirs.query)),
            claims=(*ours.claims, *theirs.claims),
        ),
        Sources(
            {**root.sources.labels, **leaf.sources.labels},
            leaf.sources.namespace or root.sources.namespace,
            leaf.sources.gateways or root.sources.gateways,
        ),
        leaf.ignore_case,
    )


def _fields(root: tuple[FieldMatch, ...], leaf: tuple[FieldMatch, ...]) -> Iterator[FieldMatch]:
    """Both, of one name the leaf's."""
    names = {(one.name, one.negated) for one in leaf}
    yield from (one for one in root if (one.name, one.negated) not in names)
    yield from leaf


def _conflict(root: RequestMatch, leaf: RequestMatch) -> bool:
    """Whether there are requests of the leaf that are none of the root."""
    ours, theirs = root.match, leaf.match
    pairs = [
        (ours.path, theirs.path),
        (ours.method, theirs.method),
        (ours.scheme, theirs.scheme),
        (ours.authority, theirs.authority),
    ]
    for mine, their in ((ours.headers, theirs.headers), (ours.query, theirs.query)):
        named = {(one.name, one.negated): one.match for one in mine}
        pairs += [(named.get((one.name, one.negated)), one.match) for one in their]
    if any(_text_conflict(*pair) for pair in pairs) or root.ignore_case != leaf.ignore_case:
        return True
    gateways = root.sources.gateways, leaf.sources.gateways
    if all(gateways) and not set(gateways[1]) <= set(gateways[0]):
        return True
    return bool(ours.ports and theirs.ports and ours.ports != theirs.ports)


def _text_conflict(root: TextMatch | None, leaf: TextMatch | None) -> bool:
    if root is None or leaf is None:
        return False
    if TextKind.REGEX in (root.kind, leaf.kind):
        return True
    if root.kind is TextKind.EXACT:
        return leaf.kind is not TextKind.EXACT or leaf.text != root.text
    if root.kind is TextKind.PREFIX:
        return leaf.kind not in (TextKind.EXACT, TextKind.PREFIX) or not leaf.text.startswith(root.text)
    return False
