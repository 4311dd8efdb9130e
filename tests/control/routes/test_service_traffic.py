"""DestinationRules become the policies of services (golden pairs), anew where one changes.

Each pair in golden_traffic/ is `<name>.in.yaml`, a manifest, and `<name>.out.yaml`: by service, the callers'
namespaces and what holds for them. `python tests/control/routes/test_service_traffic.py` writes the latter
anew."""

import json
from pathlib import Path

import pytest
import yaml

from tests.control.objects import manifest, read, service
from tests.control.plain import plain
from tests.control.test_golden_routes import SERVICES
from ztunnel.control.routes.registry import Registry
from ztunnel.control.routes.service_traffic import ServiceTraffics
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.translation import Translator, translate
from ztunnel.model.traffic import NO_TRAFFIC, Balance, Outlier, Pool, Traffic
from ztunnel.xds.resource import TRAFFIC

GOLDEN = Path(__file__).parent / "golden_traffic"


def translated(text):
    inventory = gather({"services.yaml": SERVICES, "x.yaml": text}, Inventory())
    assert not inventory.faults
    translation = translate(inventory, MeshSettings())
    out = {name: plain(one.clients) for name, one in sorted(translation.http[TRAFFIC].items())}
    return json.loads(json.dumps(out))


@pytest.mark.parametrize("given", sorted(GOLDEN.glob("*.in.yaml")), ids=lambda path: path.name.split(".")[0])
def test_rules_become_policies(given):
    expected = given.with_name(given.name.replace(".in.", ".out."))
    assert translated(given.read_text()) == yaml.safe_load(expected.read_text())


def rule(most, name="d", namespace="shop", host="ratings"):
    spec = f"{{host: '{host}', trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {most}}}}}}}}}"
    return manifest("DestinationRule", name, spec, namespace)


def test_a_change_is_sent_once_and_only_where_it_is_one():
    translator = Translator(MeshSettings())
    translator.update(gather({"services.yaml": SERVICES}, Inventory()).objects)
    ((key, one),) = read(rule(1)).items()
    delta = translator.update({key: one})
    ((name, made),) = delta.http[TRAFFIC].items()
    assert name == "shop/ratings.shop.svc.cluster.local"
    assert made.at("anywhere", 80).pool.connections == 1
    assert TRAFFIC not in translator.update({key: one}).http
    ((_, other),) = read(rule(2)).items()
    assert translator.update({key: other}).http[TRAFFIC][name].at("shop", 80).pool.connections == 2
    assert translator.update({key: None}).http[TRAFFIC] == {name: None}


def test_a_service_that_comes_after_its_rule_has_its_policies_and_one_that_goes_has_none():
    registry = Registry(MeshSettings())
    traffics, one = ServiceTraffics(registry), service("ratings")
    for key, found in read(rule(1, host="*.local")).items():
        list(registry.put(key, None, found))
        traffics.put(key, None, found)
    assert dict(traffics.update()) == {}
    list(registry.put_service(None, one))
    traffics.put_service(None, one)
    ((name, made),) = traffics.update()
    assert made.at("", 80).pool.connections == 1
    list(registry.put_service(one, None))
    traffics.put_service(one, None)
    assert dict(traffics.update()) == {name: None}


def test_a_service_whose_ports_change_has_the_same():
    registry = Registry(MeshSettings())
    traffics, one, other = ServiceTraffics(registry), service("ratings"), service("ratings", 90)
    for before, now in ((None, one), (one, other)):
        list(registry.put_service(before, now))
        traffics.put_service(before, now)
    assert list(traffics.update()) == [(str(one.key), None)]
    traffics.put_service(one, other)
    assert list(traffics.update()) == []


def test_what_the_mesh_says_holds_for_each_block_that_no_rule_has():
    """Of a port's settings and a subset's, too (istio/istio#60664)."""
    pool, outlier = Pool(connections=7), Outlier(server_errors=2)
    registry = Registry(MeshSettings())
    traffics, one = ServiceTraffics(registry), service("ratings")
    traffics.put_service(None, one)
    list(registry.put_service(None, one))
    assert dict(traffics.update()) == {str(one.key): None}
    traffics.put_baseline(Traffic(pool=pool, outlier=outlier))
    ((_, made),) = traffics.update()
    assert (made.at("any", 80).pool, made.at("any", 80, "v1").outlier) == (pool, outlier)
    spec = (
        "{host: ratings, trafficPolicy: {loadBalancer: {simple: RANDOM}, outlierDetection: {interval: 1s}, "
        "portLevelSettings: [{port: {number: 90}, connectionPool: {tcp: {maxConnections: 9}}}]}, "
        "subsets: [{name: v1, labels: {a: b}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}}]}"
    )
    for key, found in read(manifest("DestinationRule", "d", spec)).items():
        list(registry.put(key, None, found))
        traffics.put(key, None, found)
    ((_, made),) = traffics.update()
    top, port, subset = made.at("any", 80), made.at("any", 90), made.at("any", 80, "v1")
    assert (top.balancing.simple, top.pool, top.outlier.interval_seconds) == (Balance.RANDOM, pool, 1)
    assert (port.balancing, port.pool.connections, port.outlier) == (None, 9, outlier)
    assert (subset.pool.connections, subset.outlier.interval_seconds) == (3, 1)
    traffics.put_baseline(Traffic(pool=pool, outlier=outlier))
    assert dict(traffics.update()) == {}
    traffics.put_baseline(NO_TRAFFIC)
    ((_, made),) = traffics.update()
    assert (made.at("any", 80).pool, made.at("any", 90).outlier) == (None, None)


if __name__ == "__main__":
    for path in GOLDEN.glob("*.in.yaml"):
        out = yaml.safe_dump(translated(path.read_text()), sort_keys=False, width=110)
        path.with_name(path.name.replace(".in.", ".out.")).write_text(out)
