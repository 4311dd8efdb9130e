"""A node proxy's configuration dump as tables, column by column those of `istioctl ztunnel-config`
(istioctl/pkg/writer/ztunnel/configdump)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

Values = Mapping[str, Any]
Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be shown: "" for all. `namespace` is the object's; `address` and `node` are a workload's,
    `direction` (inbound, outbound) a connection's."""

    namespace: str = ""
    address: str = ""
    node: str = ""
    direction: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of thing: its title, the columns, its entries in a dump, and the rows of one of these."""

    title: str
    columns: Row
    entries: Callable[[Values, Wanted], list[Values]]
    rows: Callable[[Values, Values, Wanted, datetime], Iterable[Row]]


def table(section: Section, dump: Values, wanted: Wanted, now: datetime) -> str:
    """The table of a section; `now` says which certificates are valid."""
    rows = [row for one in section.entries(dump, wanted) for row in section.rows(one, dump, wanted, now)]
    return align([section.columns, *sorted(rows)])


def align(rows: Sequence[Row]) -> str:
    """Rows with their columns under each other, the first as headings."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    lines = (" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _workloads(dump: Values, wanted: Wanted) -> list[Values]:
    return [
        one
        for one in dump.get("workloads", ())
        if wanted.namespace in ("", one["namespace"])
        and wanted.node in ("", one.get("node", ""))
        and (not wanted.address or wanted.address in one.get("workloadIps", ()))
    ]


def _workload(one: Values, dump: Values, wanted: Wanted, now: datetime) -> Iterable[Row]:
    address = ",".join(one.get("workloadIps", ())) or one.get("hostname", "")
    yield one["namespace"], one["name"], address, one.get("node", ""), _waypoint(one, dump), one["protocol"]


def _of_namespace(key: str) -> Callable[[Values, Wanted], list[Values]]:
    def entries(dump: Values, wanted: Wanted) -> list[Values]:
        return [one for one in dump.get(key, ()) if wanted.namespace in ("", one["namespace"])]

    return entries


def _service(one: Values, dump: Values, wanted: Wanted, now: datetime) -> Iterable[Row]:
    vip = ",".join(each.rpartition("/")[2] for each in one.get("vips", ()))
    endpoints = one.get("endpoints", {})
    status = {each["uid"]: each.get("status") for each in dump.get("workloads", ())} if endpoints else {}
    healthy = sum(status.get(uid) == "Healthy" for uid in endpoints)
    yield one["namespace"], one["name"], vip, _waypoint(one, dump), f"{healthy}/{len(endpoints)}"


def _policy(one: Values, dump: Values, wanted: Wanted, now: datetime) -> Iterable[Row]:
    yield one["namespace"], one["name"], one["action"], one["scope"]


def _certificates(dump: Values, wanted: Wanted) -> list[Values]:
    return [
        one
        for one in dump.get("certificates", ())
        if not wanted.namespace or f"/ns/{wanted.namespace}/" in one["identity"]
    ]


def _certificate(one: Values, dump: Values, wanted: Wanted, now: datetime) -> Iterable[Row]:
    state = str(one["state"]).partition(":")[0]
    chain, roots = one.get("certChain", ()), one.get("rootCerts", ())
    if not chain:
        yield one["identity"], "NA", state, "false", "NA", "NA", "NA"
    shown = [("Intermediate" if number else "Leaf", each) for number, each in enumerate(chain)]
    for kind, each in (*shown, *(("Root", each) for each in roots)):
        begin, end = each.get("validFrom", ""), each.get("expirationTime", "")
        valid = str(_is_valid(begin, end, now)).lower()
        yield (
            one["identity"],
            kind,
            state,
            valid,
            f"{int(each['serialNumber']):x}",
            end or "NA",
            begin or "NA",
        )


def _is_valid(begin: str, end: str, now: datetime) -> bool:
    try:
        return datetime.fromisoformat(begin) <= now < datetime.fromisoformat(end)
    except ValueError:
        return False


def _states(dump: Values, wanted: Wanted) -> list[Values]:
    return [
        one
        for one in dump.get("workloadState", {}).values()
        if wanted.namespace in ("", one.get("info", {}).get("namespace", ""))
    ]


def _connections(one: Values, dump: Values, wanted: Wanted, now: datetime) -> Iterable[Row]:
    info, open_now = one.get("info", {}), one.get("connections", {})
    who = f"{info.get('name', '?')}.{info.get('namespace', '?')}"
    if wanted.direction != "outbound":
        for each in open_now.get("inbound", ()):
            yield who, "Inbound", each["actualDst"], each["src"], each["originalDst"], each["protocol"]
    if wanted.direction != "inbound":
        for each in open_now.get("outbound", ()):
            yield who, "Outbound", each["src"], each["actualDst"], each["originalDst"], each["protocol"]


def _waypoint(one: Values, dump: Values) -> str:
    """By its service's short name where that is known."""
    where = one.get("waypoint", {}).get("destination", "")
    if not where:
        return "None"
    return next(
        (
            str(each["name"])
            for each in dump.get("services", ())
            if where == f"{each['namespace']}/{each['hostname']}" or where in each.get("vips", ())
        ),
        "NA",
    )


SECTIONS: Final[Mapping[str, Section]] = {
    "workloads": Section(
        "WORKLOAD INFO",
        ("NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL"),
        _workloads,
        _workload,
    ),
    "services": Section(
        "SERVICE INFO",
        ("NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"),
        _of_namespace("services"),
        _service,
    ),
    "policies": Section(
        "POLICY INFO", ("NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"), _of_namespace("policies"), _policy
    ),
    "certificates": Section(
        "SECRET INFO",
        ("CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"),
        _certificates,
        _certificate,
    ),
    "connections": Section(
        "CONNECTIONS INFO",
        ("WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL"),
        _states,
        _connections,
    ),
}
