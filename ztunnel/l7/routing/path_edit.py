"""Another path for a request, as a rewrite or a redirect says it."""

from __future__ import annotations

from ztunnel.l7.path import normalize
from ztunnel.l7.regex import Regex, Substitute, regex
from ztunnel.model.route_action import PathEdit, PathEditKind
from ztunnel.model.route_match import TextKind, TextMatch


class CompiledPathEdit:
    """One, for requests that one match of a rule is for.

    Attributes:
        keeps_query: whether the query of the request is kept: not where a whole path brings its own.
    """

    __slots__ = ("_by", "_kind", "_pattern", "_prefix", "_text", "keeps_query")

    def __init__(self, edit: PathEdit, matched: TextMatch | None) -> None:
        """`matched` is what the match asks of paths. Raises ValueError, with a reason."""
        self._text = edit.text.encode()
        self._pattern: Regex | None = None
        self._by: Substitute | None = None
        self._prefix = 0
        self._kind = edit.kind
        if edit.kind is PathEditKind.REGEX:
            self._pattern = regex(edit.pattern)
            self._by = Substitute(edit.text, self._pattern.groups)
        elif edit.kind is PathEditKind.MATCHED:
            if matched is None:
                self._prefix = 1  # the / that every path begins with
            elif matched.kind in (TextKind.PREFIX, TextKind.SEGMENTS):
                self._prefix = len(matched.text.encode())
            else:
                self._kind = PathEditKind.FULL
        elif edit.kind is PathEditKind.SEGMENTS:
            if matched is not None and matched.kind is not TextKind.SEGMENTS:
                raise ValueError("what is replaced of a path is the segments that a PathPrefix matches")
            self._text = self._text.rstrip(b"/")
            self._prefix = len(matched.text.rstrip("/").encode()) if matched is not None else 0
        self.keeps_query = self._kind is not PathEditKind.FULL or b"?" not in self._text

    def edit(self, path: bytes) -> bytes:
        """The path instead of that one; both without a query."""
        if self._kind is PathEditKind.FULL:
            return self._text
        if self._pattern is not None and self._by is not None:
            return self._pattern.replace(path, self._by)
        rest = path[self._prefix :]
        if self._kind is PathEditKind.SEGMENTS:
            if not rest:
                return self._text or b"/"
            return self._text + (rest if rest.startswith(b"/") else b"/" + rest)
        return self._text + rest


def edited(edit: CompiledPathEdit, target: bytes) -> bytes | None:
    """The request target with another path; None: the edit makes none of it (Envoy sends it on as it is
    then, we answer, as nobody has judged a path that begins with no slash)."""
    path, mark, query = target.partition(b"?")
    made = edit.edit(path)
    return normalize(made + mark + query if edit.keeps_query else made)
