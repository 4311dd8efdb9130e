from ztunnel.demo.cluster import cluster
from ztunnel.demo.manifest import Key, parse
from ztunnel.demo.readiness import judged, undecided, why_unready
from ztunnel.demo.schedule import complete

POD = "apiVersion: v1\nkind: Pod\nmetadata: {{name: {0}}}\nspec: {{containers: [{1}]}}\n{2}---\n"
PROBED = "{command: [sleep, '1'], readinessProbe: {tcpSocket: {port: 80}}}"
WRITTEN = "status: {conditions: [{type: Ready, status: 'False', reason: Mine}]}\n"
OBJECTS = complete(
    {},
    parse(
        POD.format("probed", PROBED, "")
        + POD.format("plain", "{}", "")
        + POD.format("told", PROBED, WRITTEN),
        "",
    ),
    iter(map(str, range(99))).__next__,
)
PODS = cluster(OBJECTS).pods


def key(name: str) -> Key:
    return Key("", "Pod", "default", name)


def test_a_pod_that_will_be_probed_is_not_ready_before() -> None:
    found = undecided(OBJECTS, PODS)
    assert why_unready(found[key("probed")]) == "has not been probed yet"
    assert why_unready(found[key("plain")]) == ""
    assert [pod.name for pod in cluster(found).pods if pod.ready] == ["plain"]
    assert undecided(OBJECTS, ()) is OBJECTS


def test_what_a_probe_said_is_in_the_object_until_it_says_otherwise() -> None:
    refused = judged(OBJECTS, {key("probed"): "refused"})
    assert why_unready(refused[key("probed")]) == "refused"
    assert judged(refused, {key("probed"): "refused"}) is refused
    again = judged(refused, {key("probed"): ""})
    assert why_unready(again[key("probed")]) == ""
    assert all(pod.ready for pod in cluster(again).pods if pod.name == "probed")


def test_what_a_user_wrote_stands() -> None:
    assert why_unready(OBJECTS[key("told")]) == "Mine"
    assert judged(OBJECTS, {key("told"): ""}) is OBJECTS
