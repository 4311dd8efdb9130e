from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.l7.telemetry.test_attribute import EMPTY, SUBJECT
from ztunnel.l7.telemetry.expression import MOST_CHARACTERS, Expression

# Of a request with status 503, flags UF and URX, method GET, /a/b?c=d, x-user: jason, 1.5 s.
HOLDS = [
    "true",
    "!false",
    "!!true",
    "response.code >= 400",
    "response.code >= 400 || connection.mtls",
    "response.code == 503 && request.method == 'GET'",
    "response.code < 200 || response.code > 499",
    "response.code in [500, 502, 503]",
    "!(response.code in [200, 204])",
    "request.headers['x-user'] == 'jason'",
    'request.headers["X-User"] == "jason"',
    "'x-user' in request.headers",
    "!('x-none' in request.headers)",
    "has(request.headers.referer)",
    "!has(request.headers['x-none'])",
    "request.url_path.startsWith('/a')",
    "request.path.endsWith('=d')",
    "request.path.contains('b?')",
    "request.path.matches('^/a/[a-z]')",
    "request.path.matches('b')",
    "!request.path.matches('^b')",
    "request.useragent.matches(r'curl/\\d+')",
    "request.duration > duration('1s')",
    "request.duration <= duration('1s500ms')",
    "request.duration == duration('1500ms')",
    "size(request.path) == 8",
    "request.path.size() == 8",
    "string(response.code) == '503'",
    "int('503') == response.code",
    "double('1.5') == 1.5",
    "response.code / 100 == 5",
    "response.code % 100 == 3",
    "-7 / 2 == -3",
    "-7 % 2 == -1",
    "1 + 2 * 3 == 7",
    "(1 + 2) * 3 == 9",
    "1.5 + 0.5 == 2.0",
    "1 == 1.0",
    "1 < 1.5",
    "0x1F == 31",
    "'a' + 'b' == 'ab'",
    "'a' < 'b'",
    "(response.code == 503 ? 'bad' : 'good') == 'bad'",
    "request.method.lowerAscii() == 'get'",
    "true != false",
    "null == null",
    "'\\x41\\u00e4\\n' == 'A\u00e4\\n'",
    "(response.flags / 32) % 2 == 1",
    # What cannot be told is passed over where the other side decides.
    "request.headers['x-none'] == 'x' || response.code == 503",
    "response.code == 503 || request.headers['x-none'] == 'x'",
    "!(request.headers['x-none'] == 'x' && response.code == 200)",
    "source.address.startsWith('[fd00::1]')",
    "upstream.port == 8080",
    "filter_state.downstream_peer.workload == 'web'",
    "xds.cluster_name.contains('orders')",
]
FAILS = [
    "false",
    "response.code == 200",
    "response.code",  # not a truth value
    "'true'",
    "request.headers['x-none'] == 'x'",
    "request.headers['x-none'] == 'x' || response.code == 200",
    "request.headers['x-none'] != 'x'",
    "1 == true",
    "true == 1",
    "'1' == 1",
    "'a' < 1",
    "true < false",
    "1 + 'a' == 2",
    "true + true == 2",
    "1 / 0 == 1",
    "1.0 / 0.0 == 1.0",
    "1 + 1.0 == 2.0",
    "9223372036854775807 + 1 > 0",
    "!request.path",
    "response.code ? true : true",
    "response.code.startsWith('5')",
    "int('x') == 0 || false",
    "double('x') == 0.0",
    "size(5) == 1",
    "1 in ['1']",
    "1.5 % 1.0 == 0.5",
]


@pytest.mark.parametrize("text", HOLDS)
def test_a_condition_holds(text: str) -> None:
    assert Expression(text).holds(SUBJECT)


@pytest.mark.parametrize("text", FAILS)
def test_what_is_false_or_cannot_be_told_does_not(text: str) -> None:
    assert not Expression(text).holds(SUBJECT)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("request.host", "orders:80"),
        ("string(destination.port)", "80"),
        ("destination.port", "80"),
        ("response.code / 100", "5"),
        ("string(response.code / 100) + 'xx'", "5xx"),
        ("request.method + ' ' + request.url_path", "GET /a/b"),
        ("connection.mtls", "true"),
        ("1.5", "1.5"),
        ("2.0", "2"),
        ("-2.5", "-2.5"),
        ("null", None),
        ("request.duration", "1.5s"),
        ("request.headers['x-none']", None),
        ("has(request.headers.none) ? request.headers.none : 'none'", "none"),
        ("'a' in request.headers", "false"),
        ("string(null)", None),
        ("int(1.9)", "1"),
        ("int(duration('1s'))", None),
        ("'Ä'.upperAscii()", "Ä"),
        ("'a'.upperAscii()", "A"),
    ],
)
def test_a_value_is_a_text(text: str, value: str | None) -> None:
    assert Expression(text).text_of(SUBJECT) == value


def test_a_condition_about_a_request_that_says_nothing_does_not_hold() -> None:
    for text in ("request.path == ''", "request.host.startsWith('x')", "source.port > 0", "!connection.mtls"):
        assert Expression(text).holds(EMPTY) is (text == "!connection.mtls")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a value is missing before 'its end'"),
        ("response.code >=", "a value is missing before 'its end' \\(character 17\\)"),
        ("response.code = 400", "nothing of CEL begins with '= 400' \\(character 15\\)"),
        ("response.code 400", "an operator, or the end is missing before '400'"),
        ("(true", "'\\)' is missing"),
        ("[1, 2].exists(x, x == 1)", "a value is missing before '\\['"),
        ("request.headers.exists(h, h == 'x')", "exists\\(\\) is not known here: there are no loops"),
        ("request.path.split('/')", "'split' is no function of a value here"),
        ("timestamp('x')", "the function timestamp\\(\\) is not known here"),
        ("request.path.matches(request.host)", "the expression of matches\\(\\) has to stand there"),
        ("request.path.matches('(')", "regular expression"),
        ("request.headers[request.host] == 'x'", "a member is named by a text"),
        ("request.nothing == 1", "request.nothing is not known here"),
        ("metadata.filter_metadata['x'] == 1", "is not known here"),
        ("'x' in request.path", "is no map"),
        ("'x' in 5", "a list, or a map"),
        ("duration('1 day') == 1", "no duration"),
        ("duration(1) == 1", "a text such as '1.5s'"),
        ("'\\q' == ''", "is no character of a text"),
        ("99999999999999999999 > 1", "more than 64 bits"),
        ("'unfinished", "nothing of CEL begins with"),
        ("12ab", "nothing of CEL begins with '12ab'"),
        ("size(1, 2)", "size\\(\\) takes one value"),
        ("'a'.startsWith()", "startsWith\\(\\) takes one text"),
        ("'a'.lowerAscii('b')", "lowerAscii\\(\\) takes nothing"),
        ("true ? 1", "':' is missing"),
        ("(true)['x']", "only maps of attributes have members"),
        ("(" * 40 + "true" + ")" * 40, "deeper than 32 levels"),
        ("x" * (MOST_CHARACTERS + 1), "at most 2048 characters"),
        ("[" * 2000, "a value is missing"),
    ],
)
def test_what_is_no_expression_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Expression(text)


@given(st.text(alphabet="()[]!&|=<>+-*/%?:.,'\"\\ \nrx0e1abrequest.headers response.code in", max_size=60))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        found = Expression(text)
    except ValueError:
        return
    assert found.holds(SUBJECT) in (True, False)
    assert isinstance(found.text_of(SUBJECT), str | None)


def test_a_text_that_is_put_together_has_an_end() -> None:
    longer = "+".join(["request.path"] * 100)
    assert len(Expression(longer).text_of(SUBJECT) or "") == 800
