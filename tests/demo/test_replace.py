import pytest

from ztunnel.demo import find
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_the_objects_on_disk_never_name_a_pod_that_could_not_be_built(plain: Laboratory) -> None:
    taken = plain.names.netns(plain.names.pod("t", "new"))
    taken.mkdir()  # no namespace can be made, nor removed, under this name
    with pytest.raises(LaboratoryFailed, match=r"netns"):
        plain.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: t}\n")
    taken.rmdir()
    assert "new" not in [pod.name for pod in plain.cluster().pods]
    plain.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: t}\n")
    assert plain.exec("new", ["hostname"]).stdout == "new\n"


def test_names_are_known_to_running_pods_as_services_come(plain: Laboratory) -> None:
    with plain.popen(
        "caller", ["sh", "-c", "read go; getent hosts fresh"], stdin=-1, stdout=-1, text=True
    ) as running:
        plain.apply("apiVersion: v1\nkind: Service\nmetadata: {name: fresh, namespace: t}\nspec: {}\n")
        assert "fresh.t" in running.communicate("go\n")[0]


POD = (
    "apiVersion: v1\nkind: Pod\nmetadata: {{name: {0}, namespace: t, labels: {{app: web}}}}\nspec: {1}\n---\n"
)


def world(laboratory: Laboratory) -> dict[str, object]:
    """Everything that a change that failed must leave as it was."""
    names = laboratory.names
    return {
        "files": {path: path.read_bytes() for path in names.manifests.iterdir()},
        "workloads": {path: path.read_bytes() for path in names.workloads.iterdir()},
        "namespaces": find.namespaces(names),
        "hosts": {path: path.read_bytes() for path in names.all_hosts.iterdir()},
        "rules": laboratory.exec_node("node-1", ["nft", "list", "ruleset"]).stdout,
        "links": laboratory.exec_node("node-1", ["ip", "-brief", "link"]).stdout.count("veth"),
        "routes": laboratory.exec_node("node-2", ["ip", "route"]).stdout,
        "cgroups": sorted(
            str(path)
            for path in names.cgroup.rglob("pod*")
            if path.is_dir() and "populated 1" in (path / "cgroup.events").read_text()
        ),
    }


def answers(laboratory: Laboratory, url: str) -> str:
    return laboratory.exec("caller", ["curl", "-sS", "-m", "3", url]).stdout


def changes_that_fail() -> list[object]:
    spec = "{hostNetwork: true, nodeName: node-1, containers: [{name: x, ports: [{containerPort: 8080}]}]}"
    clash = POD.format("one", spec) + POD.format("two", spec)
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: third}\n---\n"
    return [
        pytest.param(clash, id="a new pod's port is taken"),
        pytest.param(
            clash + POD.format("near", "{containers: [{name: x}]}"), id="while another is restarted"
        ),
        pytest.param(node + clash.replace("node-1", "third"), id="on a new node"),
    ]


@pytest.mark.parametrize("text", changes_that_fail())
def test_a_change_that_cannot_be_carried_out_leaves_what_was(plain: Laboratory, text: str) -> None:
    before = world(plain)
    with pytest.raises(LaboratoryFailed, match="does not start"):
        plain.apply(text)
    assert world(plain) == before
    assert '"near"' in answers(plain, f"http://{plain.pod('near').addresses[0]}:8080/")
    assert '"near"' in answers(plain, f"http://[{plain.pod('near').addresses[1]}]:8080/")
    assert '"far"' in answers(plain, f"http://{plain.pod('far').addresses[0]}:8080/")
    good = POD.format("one", "{nodeName: node-1}")
    assert plain.apply(good) == ["Pod t/one added"]
    assert '"one"' in answers(plain, f"http://{plain.pod('one').addresses[0]}:8080/")


def test_what_stands_in_the_way_of_a_namespace_changes_nothing(plain: Laboratory) -> None:
    before = world(plain)
    taken = plain.names.netns(plain.names.pod("t", "new"))
    taken.mkdir()  # no namespace can be made under this name
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: third}\n---\n"
    with pytest.raises(LaboratoryFailed, match="netns"):
        plain.apply(node + POD.format("near", "{containers: [{name: x}]}") + POD.format("new", "{}"))
    taken.rmdir()
    assert world(plain) == before
    assert '"near"' in answers(plain, f"http://{plain.pod('near').addresses[0]}:8080/")


def test_a_pod_is_restarted_again_and_again_beside_one_that_stays(plain: Laboratory) -> None:
    stays = POD.format("near", "{nodeName: node-1}")
    plain.apply(stays)
    for number in range(8):
        spec = f"{{nodeName: node-1, containers: [{{name: x, env: [{{name: N, value: '{number}'}}]}}]}}"
        assert plain.apply(POD.format("moved", spec) + stays)[1] == "Pod t/near unchanged"
        for ip in plain.pod("moved").addresses:
            assert '"moved"' in answers(
                plain, f"http://[{ip}]:8080/" if ip.version == 6 else f"http://{ip}:8080/"
            )


def test_an_endpoint_of_a_service_is_a_pod_whose_probe_succeeds(plain: Laboratory) -> None:
    command = "command: [sh, -c, 'exec python3 -m http.server 8080'], ports: [{containerPort: 8080}]"
    probe = "readinessProbe: {httpGet: {port: 8080, path: %s}, periodSeconds: 1, failureThreshold: %d}"
    good = POD.format("good", f"{{containers: [{{{command}, {probe % ('/', 10)}}}]}}")
    bad = POD.format("bad", f"{{containers: [{{{command}, {probe % ('/none', 3)}}}]}}")
    plain.apply(good.replace("app: web", "app: own") + bad.replace("app: web", "app: own"))
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: t}\n"
    plain.apply(service + "spec: {selector: {app: own}, ports: [{port: 80, targetPort: 8080}]}\n")
    (port,) = plain.service("t/own").ports
    assert {end.ip for end in port.endpoints} == set(plain.pod("good").addresses)
    unready = {pod.name: pod.unready for pod in plain.survey().pods if pod.unready}
    assert unready == {"bad": "httpGet :8080/none answers 404"}
    assert "Directory listing" in answers(plain, "http://own/")
