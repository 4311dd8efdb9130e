"""Objects that route become rules as Istio and the Gateway API document them (golden pairs).

Each pair in golden_routes/ is `<name>.in.yaml`, a manifest, and `<name>.out.yaml`: the rules of each service
in the order in which they are asked, and what the operator is told. `python
tests/control/test_golden_routes.py` writes the latter anew."""

import json
from copy import deepcopy
from pathlib import Path
from random import Random

import pytest
import yaml

from tests.control.plain import routes_as_plain
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import KINDS
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.source.reading import read_value
from ztunnel.control.translation import Translator, translate
from ztunnel.l7.routing.router import Router
from ztunnel.xds.routes import parse_routes, render_routes

GOLDEN = Path(__file__).parent / "golden_routes"
SERVICES = (GOLDEN / "services.yaml").read_text()


def translated(text):
    inventory = gather({"services.yaml": SERVICES, "x.yaml": text}, Inventory())
    translation = translate(inventory, MeshSettings())
    for routes in translation.routes.values():
        assert parse_routes(render_routes(routes)) == routes
        assert [Router(routes, port).empty for port in (80, 9080, 9090) if routes.at(port)].count(True) == 0
    out = {"routes": routes_as_plain(translation.routes), "warnings": list(translation.warnings)}
    if inventory.faults:
        out["faults"] = list(map(str, inventory.faults))
    return json.loads(json.dumps({name: one for name, one in out.items() if one}))


@pytest.mark.parametrize("given", sorted(GOLDEN.glob("*.in.yaml")), ids=lambda path: path.name.split(".")[0])
def test_objects_become_rules(given):
    expected = given.with_name(given.name.replace(".in.", ".out."))
    assert translated(given.read_text()) == yaml.safe_load(expected.read_text())


JUNK = [
    None, True, 0, -1, 80, 65536, 1 << 40, 0.5, "", "x", "/", "//", "*", "*.", "(", ".*", "%", "%%",
    "%REQ(a)%", "a b", "host", ":path", "connection", "1s", "0s", "-1s", "GET", "é", "a" * 2000, "\0",
    [], {}, [None], [{}], [[]], {"": ""}, {"exact": ""}, {"regex": "("}, {"prefix": "a"}, "10.0.0.0/8",
]  # fmt: skip
DOCUMENTS = [
    each for path in sorted(GOLDEN.glob("*.in.yaml")) for each in yaml.safe_load_all(path.read_text())
]


def places(value, at=()):
    """The way to everything in a value."""
    yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield from places(below, (*at, key))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_stands_in_a_place_is_refused_or_can_be_served(seed):
    """What is read becomes rules that survive the way to a waypoint, and that its router can work with."""
    rng = Random(seed)
    services = gather({"services.yaml": SERVICES}, Inventory()).objects
    for _ in range(150):
        value = deepcopy(rng.choice(DOCUMENTS))
        way = rng.choice([at for at in places(value) if at and at[0] in ("metadata", "spec")])
        inner = value
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = deepcopy(rng.choice(JUNK))
        kind = KINDS[value["apiVersion"].partition("/")[0], value["kind"]]
        found = read_value(value, kind, strict=rng.random() < 0.5)
        assert found.faults or found.object is not None
        if found.object is not None:
            translator = Translator(MeshSettings())
            translator.update({**services, found.key: found.object})
            translator.said(found.key)
            for routes in translator.routes.values():
                assert parse_routes(render_routes(routes)) == routes
                assert not Router(routes, 9080).empty or not routes.at(9080)


if __name__ == "__main__":
    for path in GOLDEN.glob("*.in.yaml"):
        out = yaml.safe_dump(translated(path.read_text()), sort_keys=False, width=110)
        path.with_name(path.name.replace(".in.", ".out.")).write_text(out)
