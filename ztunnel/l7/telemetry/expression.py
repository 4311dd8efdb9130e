"""Expressions of CEL, as filters of access logs and values of tags are written, compiled once.

A subset: attributes of a request (`attribute`), literals and lists of them, `?:`, `||`, `&&`, `!`, `in`,
comparisons, arithmetic, `has()`, `size()`, `string()`, `int()`, `double()`, `duration()`, `startsWith`,
`endsWith`, `contains`, `matches`, `lowerAscii`. There are no loops (`all`, `exists`, `map`, `filter`), so one
takes time that is linear in its own length and in that of the texts that it looks at; what there is not is
refused by its name when it is read.

```
text ──tokens──> a parser of one function a level of precedence ──> closures, each given the request
```

Source: google/cel-spec doc/langdef.md. What an attribute does not have is an error, which `||` and `&&` pass
over where the other side decides. Messages are of `ValueError`, and say at which character.
"""

from __future__ import annotations

import re
from typing import Final

from ztunnel.l7.regex import regex
from ztunnel.l7.telemetry.attribute import Get, Subject, Unknown, Value, attribute, members
from ztunnel.l7.telemetry.literal import duration, number, unquoted
from ztunnel.l7.telemetry.operation import (
    FUNCTIONS,
    METHODS,
    WITHOUT,
    as_text,
    calculate,
    choose,
    compare,
    decided,
    is_among,
    is_there,
    negate,
    text_in,
)
from ztunnel.model.workload import Workload

MOST_CHARACTERS: Final = 2048
_DEEPEST: Final = 32

_TOKEN: Final = re.compile(
    r"""(?P<number>(?:\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|0x[0-9a-fA-F]+|\d+)(?![\w.]))"""
    r"""|(?P<text>[rR]?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))"""
    r"""|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<sign>\|\||&&|==|!=|<=|>=|[-+*/%<>!?:.,()\[\]])"""
)
_MACROS: Final = frozenset(("all", "exists", "exists_one", "map", "filter"))
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


class Expression:
    """One, compiled.

    Attributes:
        text: as it was written.
    """

    __slots__ = ("_get", "text")

    def __init__(self, text: str, node: Workload | None = None) -> None:
        """`node` is the waypoint. Raises ValueError: it is none, or says what is not known here."""
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"an expression has at most {MOST_CHARACTERS} characters, not {len(text)}")
        self.text = text
        self._get = _Parser(text, node).whole()

    def holds(self, subject: Subject) -> bool:
        """Whether it is true; what cannot be told is not (Envoy's CEL access log filter)."""
        try:
            return self._get(subject) is True
        except Unknown:
            return False

    def text_of(self, subject: Subject) -> str | None:
        """Its value as a text; None: it has none."""
        try:
            return as_text(self._get(subject))
        except Unknown:
            return None


class _Parser:
    """Reads one expression; each method takes what it is called for, and gives what computes it."""

    def __init__(self, text: str, node: Workload | None) -> None:
        self._node = node
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        self._depth = 0
        at = 0
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"nothing of CEL begins with {text[at : at + 20]!r} (character {at + 1})")
            self._tokens.append((found.lastgroup or "", found[0], at + 1))
            at = found.end()
        self._tokens.append(("end", "its end", len(text) + 1))

    def whole(self) -> Get:
        get = self._choice()
        if self._tokens[self._at][0] != "end":
            raise self._wrong("an operator, or the end")
        return get

    def _next(self, *signs: str) -> str:
        """The next token, if it is one of these; empty otherwise."""
        kind, text, _ = self._tokens[self._at]
        if kind in ("sign", "name") and text in signs:
            self._at += 1
            return text
        return ""

    def _need(self, sign: str) -> None:
        if not self._next(sign):
            raise self._wrong(repr(sign))

    def _wrong(self, wanted: str) -> ValueError:
        _, text, at = self._tokens[self._at]
        return ValueError(f"{wanted} is missing before {text!r} (character {at})")

    def _choice(self) -> Get:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"an expression deeper than {_DEEPEST} levels")
        get = self._either()
        if self._next("?"):
            one = self._choice()
            self._need(":")
            get = choose(get, one, self._choice())
        self._depth -= 1
        return get

    def _either(self) -> Get:
        get = self._both()
        while self._next("||"):
            get = decided(get, self._both(), True)
        return get

    def _both(self) -> Get:
        get = self._relation()
        while self._next("&&"):
            get = decided(get, self._relation(), False)
        return get

    def _relation(self) -> Get:
        get = self._sum()
        while sign := self._next("==", "!=", "<", "<=", ">", ">=", "in"):
            get = self._contained(get) if sign == "in" else compare(sign, get, self._sum())
        return get

    def _contained(self, get: Get) -> Get:
        if self._next("["):
            within = self._list("]")
            return lambda subject: is_among(get(subject), within, subject)
        names = self._names()
        if not names:
            raise self._wrong("a list, or a map such as request.headers,")
        found = members(names)
        return lambda subject: found(subject, get(subject))

    def _sum(self) -> Get:
        get = self._product()
        while sign := self._next("+", "-"):
            get = calculate(sign, get, self._product())
        return get

    def _product(self) -> Get:
        get = self._unary()
        while sign := self._next("*", "/", "%"):
            get = calculate(sign, get, self._unary())
        return get

    def _unary(self) -> Get:
        signs = 0
        if self._next("!"):
            signs = 1
            while self._next("!"):
                signs += 1
            get = self._member()
            return negate(get, signs % 2 == 1)
        if self._next("-"):
            return calculate("-", _constant(0), self._member(), negative=True)
        return self._member()

    def _member(self) -> Get:
        get = self._primary()
        while self._next("."):
            get = self._method(get)
        if self._next("["):
            raise ValueError("only maps of attributes have members here")
        return get

    def _method(self, get: Get) -> Get:
        kind, name, at = self._tokens[self._at]
        self._at += 1
        if name in _MACROS:
            raise ValueError(f"{name}() is not known here: there are no loops (character {at})")
        if kind != "name" or name not in METHODS or not self._next("("):
            raise ValueError(f"{name!r} is no function of a value here (character {at})")
        if name == "matches":
            return self._matches(get)
        arguments = self._list(")")
        if len(arguments) != (0 if name in WITHOUT else 1):
            raise ValueError(f"{name}() takes {'nothing' if name in WITHOUT else 'one text'}")
        method = METHODS[name]
        if not arguments:
            return lambda subject: method(text_in(get(subject)), "")
        argument = arguments[0]
        return lambda subject: method(text_in(get(subject)), text_in(argument(subject)))

    def _matches(self, get: Get) -> Get:
        kind, text, _ = self._tokens[self._at]
        if kind != "text":
            raise self._wrong("a text: the expression of matches() has to stand there,")
        self._at += 1
        self._need(")")
        found = regex(f"(?s:.*)(?:{unquoted(text)})(?s:.*)")
        return lambda subject: found.matches(text_in(get(subject)).encode("utf-8", "replace"))

    def _primary(self) -> Get:
        kind, text, at = self._tokens[self._at]
        if kind == "number":
            self._at += 1
            return _constant(number(text))
        if kind == "text":
            self._at += 1
            return _constant(unquoted(text))
        if self._next("("):
            get = self._choice()
            self._need(")")
            return get
        if kind != "name":
            raise self._wrong("a value")
        if text in _WORDS:
            self._at += 1
            return _constant(_WORDS[text])
        if self._tokens[self._at + 1][1] == "(":
            self._at += 2
            return self._call(text, at)
        names = self._names()
        after = self._tokens[self._at + 1][1] if self._tokens[self._at][1] == "." else ""
        if after in _MACROS:
            raise ValueError(f"{after}() is not known here: there are no loops (character {at})")
        return attribute(names, self._node)

    def _names(self) -> tuple[str, ...]:
        """`a.b['c']` as its names, up to a function; none where no name is next."""
        if self._tokens[self._at][0] != "name":
            return ()
        found = [self._tokens[self._at][1]]
        self._at += 1
        while True:
            kind, text, _ = self._tokens[self._at]
            if kind != "sign" or text not in (".", "["):
                return tuple(found)
            after = self._tokens[self._at + 1]
            if text == "." and after[0] == "name" and self._tokens[self._at + 2][1] != "(":
                found.append(after[1])
                self._at += 2
            elif text == "[" and after[0] == "text" and self._tokens[self._at + 2][1] == "]":
                found.append(unquoted(after[1]))
                self._at += 3
            elif text == ".":
                return tuple(found)
            else:
                raise ValueError(f"a member is named by a text, ['name'] (character {after[2]})")

    def _call(self, name: str, at: int) -> Get:
        if name == "has":
            got = attribute(self._names(), self._node)
            self._need(")")
            return lambda subject: is_there(got, subject)
        if name == "duration":
            kind, text, _ = self._tokens[self._at]
            if kind != "text":
                raise self._wrong("a text such as '1.5s'")
            self._at += 1
            self._need(")")
            return _constant(duration(unquoted(text)))
        if name not in FUNCTIONS:
            raise ValueError(f"the function {name}() is not known here (character {at})")
        arguments = self._list(")")
        if len(arguments) != 1:
            raise ValueError(f"{name}() takes one value")
        function, get = FUNCTIONS[name], arguments[0]
        return lambda subject: function(get(subject))

    def _list(self, end: str) -> list[Get]:
        found: list[Get] = []
        if self._next(end):
            return found
        while True:
            found.append(self._choice())
            if self._next(end):
                return found
            self._need(",")


def _constant(value: Value) -> Get:
    return lambda subject: value
