"""The cluster of the benchmark is as large as it says, and its API server is one to an informer."""

from random import Random

import pytest
import trio

from bench.control import Pushes
from bench.control_api import ApiServer
from bench.control_world import NAMESPACES, PODS, POLICIES, SERVICES, Pod, pod_value, pods, slice_value, world
from bench.waypoint_world import namespace_labels, waypoint_objects
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.follow import ClusterWatch
from ztunnel.control.source.reading import read_value
from ztunnel.control.source.served import SERVED
from ztunnel.control.translation import Translator
from ztunnel.kube.connect import open_api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.resource import CONFIG_MAPS
from ztunnel.model.service import Service
from ztunnel.xds.resource import ADDRESS, TRAFFIC

RESOURCES = {served.kind: served.candidates[0] for served in SERVED}


def test_the_cluster_is_as_large_as_it_says():
    kinds = [kind for kind, _ in world()]
    assert kinds.count("Pod") == NAMESPACES * PODS == len(pods()) == len({pod.ip for pod in pods()})
    assert kinds.count("Service") == NAMESPACES * SERVICES == kinds.count("EndpointSlice")
    assert kinds.count("AuthorizationPolicy") == NAMESPACES * POLICIES


def test_a_slice_says_which_of_its_pods_are_not_ready():
    one = Pod(3, 14)
    found = slice_value(3, one.service, {one})["endpoints"]
    assert [each["addresses"] for each in found if not each["conditions"]["ready"]] == [[one.ip]]


async def test_its_api_server_is_followed(tmp_path):
    api, published = ApiServer(RESOURCES), []
    api.put("Pod", pod_value(Pod(0, 1), ready=True))
    async with api.served() as port, trio.open_nursery() as nursery:
        server = f"http://127.0.0.1:{port}"
        path = tmp_path / "config"
        path.write_text(
            "{current-context: c, users: [{name: u, user: {}}], "
            f"clusters: [{{name: c, cluster: {{server: '{server}'}}}}], "
            "contexts: [{name: c, context: {cluster: c, user: u}}]}"
        )
        async with open_api(str(path)) as client:
            watch = ClusterWatch(client, MeshSettings(), published.append, rng=Random(1))
            await nursery.start(watch.run)
            while api.watches < len(SERVED):  # noqa: ASYNC110
                await trio.sleep(0.01)
            api.put("Pod", pod_value(Pod(0, 2), ready=False))
            while len(published[-1].resources[ADDRESS]) < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
            made = {"metadata": {"name": "c", "namespace": "x"}, "data": {}}
            await client.create(CONFIG_MAPS, made, "x")
            assert [one["metadata"]["name"] for one in api.objects(CONFIG_MAPS.path())] == ["c"]
            with pytest.raises(ApiFailure, match="not there"):
                await client.get(CONFIG_MAPS, "none", "x")
            nursery.cancel_scope.cancel()


def test_a_push_is_timed_from_its_change():
    pushes = Pushes({"a": 1.0})
    pushes.acknowledged(["a", "b"], 1.5)
    assert pushes.seconds == [0.5]


def test_each_namespace_has_a_waypoint_that_serves_where_it_is_asked_for():
    translator = Translator(MeshSettings())
    objects = {}
    apps = (one for one in world(namespace_labels()) if one[0] in ("Namespace", "Service"))
    for kind, value in (*apps, *waypoint_objects()):
        served = next(one for one in SERVED if one.kind == kind)
        typed = {"apiVersion": served.candidates[0].api_version, "kind": kind, **value}
        found = read_value(typed, served.reader, strict=served.strict)
        assert found.faults == (), (kind, found.faults)
        objects[found.key] = found.object
    translator.update(objects)
    assert translator.warnings() == ()
    assert len(translator.routes) == NAMESPACES * SERVICES
    attached = [one for one in translator.addresses.values() if isinstance(one, Service) and one.waypoint]
    assert len(attached) == NAMESPACES * SERVICES
    assert len(translator.http.in_force[TRAFFIC]) == NAMESPACES * SERVICES
