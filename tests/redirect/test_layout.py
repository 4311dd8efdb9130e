from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel.lab import CACHE, original
from ztunnel.kernel.compile import headers_tree
from ztunnel.model.address import Endpoint, canonical, pack16
from ztunnel.redirect import held, layout, outside, passages, records
from ztunnel.redirect.load import read_sources
from ztunnel.redirect.source import assemble

SOURCES = read_sources()
SHARED = "".join(SOURCES[f"lib/{name}.h"] for name in ("types", "rules", "reports", "forwards"))
STRUCTS = {
    "addr": layout.ADDR,
    "endpoint": layout.ENDPOINT,
    "tuple": layout.TUPLE,
    "pod": layout.POD,
    "intent": layout.INTENT,
    "caller": layout.CALLER,
    "listener": layout.LISTENER,
    "destination": layout.DESTINATION,
    "admission": layout.ADMISSION,
    "question": layout.QUESTION,
    "verdict": layout.VERDICT,
    "vip": layout.VIP,
    "affinity": layout.AFFINITY,
    "slot": layout.SLOT,
    "node_clients": layout.NODE_CLIENTS,
    "start_rules": layout.START_RULES,
    "record": records.RECORD,
    "outside": outside.OUTSIDE,
    "interface": passages.INTERFACE,
    "passage": passages.PASSAGE,
    "allowance": struct.Struct("=QQ"),  # the kernel's own
    "forwarded": passages.FORWARDED,
    "held": held.HELD,
}
ENUMS: dict[str, type[IntEnum | IntFlag]] = {
    "pod_flags": layout.PodFlag,
    "intent_kind": layout.IntentKind,
    "admission_kind": layout.AdmissionKind,
    "verdict_kind": layout.VerdictKind,
    "listener_kind": layout.ListenerKind,
    "node_rule": layout.NodeRule,
    "start_rule": layout.StartRule,
    "record_event": records.RecordEvent,
    "record_role": records.RecordRole,
    "held_event": held.HeldEvent,
    "outcome": layout.Outcome,
}

ips = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address).map(canonical)
)
ports = st.integers(1, 65535)
endpoints = st.builds(Endpoint, ips, ports)
numbers = st.integers(0, 2**64 - 1)


# --- the twin


@pytest.mark.parametrize("name", ENUMS)
def test_an_enum_has_the_numbers_of_c(name) -> None:
    text = SHARED + SOURCES["lib/outcomes.h"]
    body = re.search(rf"enum {name} {{(.*?)}}", text, re.DOTALL)
    assert body
    found = {word: int(number) for word, number in re.findall(r"(\w+) = (\d+)", body[1])}
    found.pop("OUTCOMES", None)
    ours = {each.name: each.value for each in ENUMS[name] if each.value or name != "pod_flags"}
    assert ours == {key.removeprefix("POD_"): value for key, value in found.items()}


def test_every_struct_of_c_has_a_twin() -> None:
    assert set(re.findall(r"^struct (\w+) {", SHARED, re.MULTILINE)) == set(STRUCTS)


def fields_of(codec: struct.Struct) -> list[tuple[int, int]]:
    """(offset, size) of each value in a format without alignment."""
    found, offset = [], 0
    for count, kind in re.findall(r"(\d*)([a-zA-Z])", codec.format):
        if kind == "s":
            found.append((offset, int(count)))
            offset += int(count)
        elif kind == "x":
            offset += int(count or 1)
        else:
            size = struct.calcsize(f"={kind}")
            found += [(offset + size * index, size) for index in range(int(count or 1))]
            offset += size * int(count or 1)
    return found


FLATTEN = """
import ctypes, json, sys
sys.path.append("/usr/lib/python3/dist-packages")
from bcc import BPF
request = json.load(sys.stdin)
def flat(kind, base=0):
    for name, each in kind._fields_:
        at = base + getattr(kind, name).offset
        if name.startswith("pad") or name.startswith("__pad"):
            continue
        if name == "word" or not hasattr(each, "_fields_"):
            yield at, ctypes.sizeof(each)
        else:
            yield from flat(each, at)
module = BPF(text=request["text"])
print(json.dumps({name: [ctypes.sizeof(module["t_" + name].Leaf), list(flat(module["t_" + name].Leaf))]
                  for name in request["names"]}))
"""


@pytest.mark.root
@pytest.mark.timeout(60)
def test_a_struct_has_the_fields_that_the_compiler_sees() -> None:
    tables = "\n".join(f'BPF_TABLE("hash", u64, struct {name}, t_{name}, 1);' for name in STRUCTS)
    request = json.dumps({"text": f"{assemble(SOURCES)}\n{tables}\n", "names": list(STRUCTS)})
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(headers_tree(CACHE))}
    done = subprocess.run(
        [sys.executable, "-c", FLATTEN],
        input=request,
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    seen = json.loads(done.stdout)
    for name, codec in STRUCTS.items():
        size, fields = seen[name]
        assert codec.size == size, name
        assert fields_of(codec) == [tuple(field) for field in fields], name


# --- both ways


@given(ips)
def test_an_address_comes_back(ip) -> None:
    assert layout.pull_ip(pack16(ip)) == ip


@given(st.none() | ips, st.none() | ips, st.sampled_from([*layout.PodFlag, layout.PodFlag(3)]))
def test_a_pod_comes_back(ipv4, ipv6, flags) -> None:
    unspecified = IPv6Address("::")
    expected = tuple(None if ip == unspecified else ip for ip in (ipv4, ipv6))
    assert layout.pull_pod(layout.push_pod(ipv4, ipv6, flags)) == (*expected, flags)


@given(endpoints, st.none() | endpoints)
def test_a_destination_comes_back_with_its_pick(asked, picked) -> None:
    packed = layout.push_endpoint(asked) + (layout.push_endpoint(picked) if picked else bytes(20))
    recalled = layout.pull_destination(packed)
    assert recalled == layout.Recalled(original(str(asked.ip), asked.port), picked)


@given(numbers, endpoints, numbers, numbers, st.integers(0, 2**32 - 1))
def test_a_verdict_names_its_destination_twice(cookie, to, first, second, policy) -> None:
    assert layout.push_question(cookie, to)[8:28] == layout.push_endpoint(to)
    direct = layout.push_verdict(layout.Direct(cookie, first, second), to)
    assert layout.VERDICT.unpack(direct) == (
        cookie, first, second, layout.VerdictKind.GO_DIRECT, 0, pack16(to.ip), to.port
    )  # fmt: skip
    deny = layout.push_verdict(layout.Deny(policy, first), to)
    assert layout.VERDICT.unpack(deny) == (
        0,
        first,
        0,
        layout.VerdictKind.DENY,
        policy,
        pack16(to.ip),
        to.port,
    )


@given(endpoints, endpoints)
def test_a_tuple_is_the_connection_from_its_openers_side(source, destination) -> None:
    unpacked = layout.TUPLE.unpack(layout.push_tuple(source, destination))
    assert unpacked == (pack16(source.ip), pack16(destination.ip), source.port, destination.port)
