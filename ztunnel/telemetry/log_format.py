"""Formats of the access log that an operator writes: text, or a JSON object, with Envoy's command operators.

Source: Envoy's documentation, access log usage (configuration/observability/access_log/usage). An operator
that we do not know is refused, not left empty. What a peer says cannot leave its line, nor the quotes that a
format puts around it (`line`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ztunnel.telemetry.line import escaped
from ztunnel.telemetry.request_log import Fields, RequestRecord, start_time

_OPERATOR = re.compile(r"%([A-Z0-9_]+)(?:\(([^()]*)\))?(?::([0-9]{1,5}))?%")
_FRACTION = re.compile(r"%([3-9])f")
_NOTHING = "-"
_LONGEST = 16 * 1024
_DEEPEST = 8

_GRPC_NAMES: dict[str, str] = {
    "0": "OK", "1": "Canceled", "2": "Unknown", "3": "InvalidArgument", "4": "DeadlineExceeded",
    "5": "NotFound", "6": "AlreadyExists", "7": "PermissionDenied", "8": "ResourceExhausted",
    "9": "FailedPrecondition", "10": "Aborted", "11": "OutOfRange", "12": "Unimplemented", "13": "Internal",
    "14": "Unavailable", "15": "DataLoss", "16": "Unauthenticated",
}  # fmt: skip

Value = str | int | None
Operator = Callable[[RequestRecord], Value]


def parse_format(text: str, omit_empty: bool = False) -> Callable[[RequestRecord], str]:
    """What renders a record as a line, without its end. `omit_empty`: what is not known is left out, instead
    of `-` or null.

    Raises:
        ValueError: why the text is no format.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"a format of more than {_LONGEST} characters")
    if not text.lstrip().startswith("{"):
        parts = _parts(text.rstrip("\r\n"))
        nothing = "" if omit_empty else _NOTHING
        return lambda record: "".join(map(_text_of(record, nothing), parts))
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a format that begins with a brace is to be JSON: {error}") from error
    made = _entry(entry, _DEEPEST)
    if omit_empty:
        return lambda record: _as_json(_known_of(made(record)))
    return lambda record: _as_json(made(record))


def parse_plain(text: str) -> Callable[[RequestRecord], str]:
    """What renders a record as a text that is no line: nothing is escaped, what is not known left out. Raises
    ValueError as `parse_format`."""
    if len(text) > _LONGEST:
        raise ValueError(f"a format of more than {_LONGEST} characters")
    parts = _parts(text)
    return lambda record: "".join(_plain(part, record, "") for part in parts)


def _known_of(entry: Any) -> Any:
    """Without what is null."""
    if isinstance(entry, dict):
        return {key: _known_of(each) for key, each in entry.items() if each is not None}
    return [_known_of(each) for each in entry] if isinstance(entry, list) else entry


def _parts(text: str) -> list[str | Operator]:
    """Literals and operators in their order; `%%` is a percent sign."""
    parts: list[str | Operator] = []
    at = 0
    while at < len(text):
        sign = text.find("%", at)
        if sign < 0:
            parts.append(text[at:])
            break
        if sign > at:
            parts.append(text[at:sign])
        if text.startswith("%%", sign):
            parts.append("%")
            at = sign + 2
            continue
        found = _OPERATOR.match(text, sign)
        if found is None:
            raise ValueError(f"no operator at {text[sign : sign + 40]!r}; a percent sign is written %%")
        parts.append(_operator(found[1], found[2], int(found[3]) if found[3] else 0))
        at = found.end()
    return parts


def _text_of(record: RequestRecord, nothing: str) -> Callable[[str | Operator], str]:
    def text(part: str | Operator) -> str:
        if isinstance(part, str):
            return part
        value = part(record)
        return nothing if value is None or value == "" else escaped(str(value))

    return text


def _entry(value: Any, depth: int) -> Callable[[RequestRecord], Any]:
    """One value of a JSON format; a single operator keeps its type, and what is not known is null."""
    if isinstance(value, dict) and depth:
        inner = {key: _entry(each, depth - 1) for key, each in value.items()}
        return lambda record: {key: each(record) for key, each in inner.items()}
    if isinstance(value, list) and depth:
        each_of = [_entry(each, depth - 1) for each in value]
        return lambda record: [each(record) for each in each_of]
    if isinstance(value, dict | list):
        raise ValueError(f"a format deeper than {_DEEPEST} levels")
    if not isinstance(value, str):
        return lambda record: value
    parts = _parts(value)
    if len(parts) == 1 and not isinstance(parts[0], str):
        only = parts[0]
        return lambda record: only(record) if only(record) != "" else None
    return lambda record: "".join(_plain(part, record, _NOTHING) for part in parts)


def _plain(part: str | Operator, record: RequestRecord, nothing: str) -> str:
    if isinstance(part, str):
        return part
    value = part(record)
    return nothing if value is None or value == "" else str(value)


def _as_json(entry: Any) -> str:
    return json.dumps(entry, separators=(",", ":")).replace("\x7f", "\\u007f")


def _operator(name: str, argument: str | None, longest: int) -> Operator:
    if name in _OF_FIELDS:
        return _of_fields(name, argument or "", longest)
    if name == "START_TIME":
        return _start_time(argument)
    simple = _SIMPLE.get(name)
    if simple is None:
        raise ValueError(f"the operator %{name}% is not known here")
    if argument is not None and name not in _WITH_ARGUMENT:
        raise ValueError(f"the operator %{name}% takes no argument")
    return simple


def _of_fields(name: str, argument: str, longest: int) -> Operator:
    """`%REQ(X?Y):Z%`: the first of two fields that there is, cut to a length."""
    names = [each.strip().lower().encode() for each in argument.split("?")]
    if not 1 <= len(names) <= 2 or not all(names):
        raise ValueError(f"%{name}% takes the name of a field, or two with '?' between them")
    pick = _OF_FIELDS[name]

    def value(record: RequestRecord) -> str | None:
        for each in names:
            found = _field(record, pick(record), each)
            if found:
                return found[:longest] if longest else found
        return None

    return value


_PSEUDO: Final[Mapping[bytes, Callable[[RequestRecord], str]]] = {
    b":method": lambda it: it.method,
    b":path": lambda it: it.path,
    b":authority": lambda it: it.authority,
    b":scheme": lambda it: it.scheme,
}


def _field(record: RequestRecord, fields: Fields, name: bytes) -> str:
    if name[:1] == b":":
        if fields is record.request:
            return _PSEUDO[name](record) if name in _PSEUDO else ""
        return str(record.status) if name == b":status" and record.status else ""
    return ",".join(value.decode("utf-8", "backslashreplace") for each, value in fields if each == name)


def _start_time(pattern: str | None) -> Operator:
    """`%START_TIME(...)%` with a pattern of strftime, `%s` (seconds of the epoch) and `%3f` to `%9f`."""
    if not pattern:
        return lambda record: start_time(record.time_ns)

    def value(record: RequestRecord) -> str:
        seconds, rest = divmod(record.time_ns, 1_000_000_000)
        digits = f"{rest:09}"
        asked = _FRACTION.sub(lambda found: digits[: int(found[1])], pattern.replace("%s", str(seconds)))
        return datetime.fromtimestamp(seconds, UTC).strftime(asked)

    return value


def _without_port(address: str) -> str:
    return address.rpartition(":")[0].strip("[]") if address else ""


def _port(address: str) -> int | None:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else None


def _known(milliseconds: int) -> int | None:
    return milliseconds if milliseconds >= 0 else None


_OF_FIELDS: dict[str, Callable[[RequestRecord], Fields]] = {
    "REQ": lambda record: record.request,
    "RESP": lambda record: record.response,
    "TRAILER": lambda record: record.trailers,
}
_SIMPLE: dict[str, Operator] = {
    "PROTOCOL": lambda it: it.protocol,
    "RESPONSE_CODE": lambda it: it.status,
    "RESPONSE_FLAGS": lambda it: it.flag,
    "RESPONSE_CODE_DETAILS": lambda it: it.details,
    "CONNECTION_TERMINATION_DETAILS": lambda it: it.termination,
    "UPSTREAM_TRANSPORT_FAILURE_REASON": lambda it: it.upstream_failure,
    "BYTES_RECEIVED": lambda it: it.received_bytes,
    "BYTES_SENT": lambda it: it.sent_bytes,
    "DURATION": lambda it: int(it.duration_seconds * 1000),
    "RESPONSE_DURATION": lambda it: _known(it.upstream_milliseconds),
    "UPSTREAM_HOST": lambda it: it.upstream_host,
    "UPSTREAM_REMOTE_ADDRESS": lambda it: it.upstream_host,
    "UPSTREAM_CLUSTER": lambda it: it.upstream_cluster,
    "UPSTREAM_CLUSTER_RAW": lambda it: it.upstream_cluster,
    "UPSTREAM_LOCAL_ADDRESS": lambda it: it.upstream_local,
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": lambda it: it.attempts,
    "DOWNSTREAM_LOCAL_ADDRESS": lambda it: it.downstream_local,
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda it: _without_port(it.downstream_local),
    "DOWNSTREAM_LOCAL_PORT": lambda it: _port(it.downstream_local),
    "DOWNSTREAM_REMOTE_ADDRESS": lambda it: it.downstream_remote,
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda it: _without_port(it.downstream_remote),
    "DOWNSTREAM_REMOTE_PORT": lambda it: _port(it.downstream_remote),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": lambda it: it.downstream_remote,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": lambda it: _without_port(it.downstream_remote),
    "DOWNSTREAM_PEER_URI_SAN": lambda it: it.peer,
    "REQUESTED_SERVER_NAME": lambda it: it.server_name,
    "ROUTE_NAME": lambda it: it.route,
    "GRPC_STATUS": lambda it: _GRPC_NAMES.get(it.grpc_status, it.grpc_status),
    "GRPC_STATUS_NUMBER": lambda it: int(it.grpc_status) if it.grpc_status.isdigit() else None,
}
_WITH_ARGUMENT = frozenset({"GRPC_STATUS"})
