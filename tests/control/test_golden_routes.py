"""Objects that route become rules as Istio and the Gateway API document them (golden pairs).

Each pair in golden_routes/ is `<name>.in.yaml`, a manifest, and `<name>.out.yaml`: the rules of each service
in the order in which they are asked, and what the operator is told. `python
tests/control/test_golden_routes.py` writes the latter anew."""

import json
from pathlib import Path

import pytest
import yaml

from tests.control.plain import routes_as_plain
from ztunnel.control.inventory import Inventory, gather
from ztunnel.control.settings import MeshSettings
from ztunnel.control.translation import translate
from ztunnel.l7.router import Router
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


if __name__ == "__main__":
    for path in GOLDEN.glob("*.in.yaml"):
        out = yaml.safe_dump(translated(path.read_text()), sort_keys=False, width=110)
        path.with_name(path.name.replace(".in.", ".out.")).write_text(out)
