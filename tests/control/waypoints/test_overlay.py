"""A ConfigMap's pieces are laid over what is made for a Gateway, and reach for nothing else."""

import pytest

from ztunnel.control.waypoints.overlay import BadOverlay, lay_over, read_overlays

HEAD = {"name": "wp", "namespace": "shop", "labels": {"own": "yes"}, "ownerReferences": [{"uid": "1"}]}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": HEAD,
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"own": "yes"}},
        "template": {
            "metadata": {"labels": {"own": "yes"}, "annotations": {"a": "1"}},
            "spec": {
                "containers": [
                    {
                        "name": "waypoint", "image": "x", "env": [{"name": "A", "value": "1"}],
                        "resources": {"limits": {"cpu": "1"}}, "args": ["waypoint"],
                        "ports": [{"name": "mesh", "containerPort": 15008}],
                    }
                ],
                "nodeSelector": {"kubernetes.io/os": "linux"},
            },
        },
    },
}  # fmt: skip
SERVICE = {
    "metadata": HEAD,
    "spec": {"selector": {"own": "yes"}, "ports": [{"port": 15008}, {"name": "status", "port": 15021}]},
}


def laid(text, name="deployment", value=DEPLOYMENT):
    return lay_over(value, read_overlays({name: text})[name])


def container(text):
    (found,) = laid(f"spec: {{template: {{spec: {{containers: [{text}]}}}}}}")["spec"]["template"]["spec"][
        "containers"
    ]
    return found


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("{name: waypoint, image: y}", "image", "y"),
        ("{name: waypoint, env: [{name: B, value: '2'}]}", "env",
         [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]),
        ("{name: waypoint, env: [{name: A, value: '2'}]}", "env", [{"name": "A", "value": "2"}]),
        ("{name: waypoint, env: [{name: A, $patch: delete}]}", "env", []),
        ("{name: waypoint, env: [{$patch: replace}, {name: C, value: c}]}", "env",
         [{"name": "C", "value": "c"}]),
        ("{name: waypoint, resources: {requests: {cpu: 222m}}}", "resources",
         {"limits": {"cpu": "1"}, "requests": {"cpu": "222m"}}),
        ("{name: waypoint, resources: {$patch: replace, requests: {cpu: 222m}}}", "resources",
         {"requests": {"cpu": "222m"}}),
        ("{name: waypoint, resources: {limits: {cpu: null}}}", "resources", {"limits": {}}),
        ("{name: waypoint, args: [waypoint, --debug]}", "args", ["waypoint", "--debug"]),
        ("{name: waypoint, ports: [{containerPort: 15008, name: hbone}]}", "ports",
         [{"name": "hbone", "containerPort": 15008}]),
        ("{name: istio-proxy, image: z}", "image", "x"),
        ("{name: istio-proxy, resources: {limits: {memory: 1Gi}}}", "resources",
         {"limits": {"cpu": "1", "memory": "1Gi"}}),
    ],
)  # fmt: skip
def test_a_container_is_merged_by_its_name(text, name, expected):
    found = laid(f"spec: {{template: {{spec: {{containers: [{text}]}}}}}}")
    first = found["spec"]["template"]["spec"]["containers"][0]
    assert first.get(name) == expected


def test_what_is_said_of_other_places_is_merged_too_and_the_rest_stays():
    found = laid(
        "metadata: {annotations: {x: y}}\n"
        "spec: {replicas: 4, strategy: {type: Recreate}, template: {metadata: {annotations: {b: '2'}},"
        " spec: {nodeSelector: {pool: mesh}, priorityClassName: high}}}"
    )
    assert found["metadata"]["annotations"] == {"x": "y"}
    assert (found["spec"]["replicas"], found["spec"]["strategy"]) == (4, {"type": "Recreate"})
    template = found["spec"]["template"]
    assert template["metadata"]["annotations"] == {"a": "1", "b": "2"}
    assert template["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "mesh"}
    assert template["spec"]["priorityClassName"] == "high"
    assert DEPLOYMENT["spec"]["replicas"] == 1  # as it was


def test_a_port_of_the_service_is_taken_away():
    """Istio's own example."""
    found = laid("spec: {ports: [{$patch: delete, port: 15021}]}", "service", SERVICE)
    assert found["spec"]["ports"] == [{"port": 15008}]


@pytest.mark.parametrize(
    "text",
    [
        "metadata: {labels: {own: no, more: x}}",
        "spec: {selector: {matchLabels: {other: x}}, template: {metadata: {labels: {own: no}}}}",
        "spec: {template: null}",
        "spec: {template: {metadata: null}}",
    ],
)
def test_what_it_is_known_by_stays(text):
    found = laid(text)
    assert {name: found["metadata"][name] for name in ("name", "namespace", "ownerReferences")} == {
        name: HEAD[name] for name in ("name", "namespace", "ownerReferences")
    }
    assert found["metadata"]["labels"]["own"] == "yes"
    assert found["spec"]["selector"] == {"matchLabels": {"own": "yes"}}
    if found["spec"].get("template") is not None:
        assert found["spec"]["template"]["metadata"]["labels"]["own"] == "yes"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("statefulSet", "spec: {}", "statefulSet: not one of deployment, service"),
        ("deployment", "[1]", "deployment: has to be a mapping"),
        ("deployment", "spec: {a: [}", "deployment: line 1: not YAML"),
        ("deployment", "spec: {a: 1, a: 2}", "stands twice"),
        ("deployment", "spec: &a {x: 1}\nmetadata: {labels: *a}", "aliases"),
        ("deployment", "status: {}", "deployment: status: only metadata and spec"),
        ("deployment", "metadata: {name: other}", "metadata.name: only labels and annotations"),
        ("deployment", "spec: {template: {spec: {hostNetwork: true}}}", "spec.template.spec.hostNetwork"),
        ("deployment", "spec: {template: {spec: {volumes: [{name: a, hostPath: {path: /}}]}}}", "hostPath"),
        ("deployment", "spec: {template: {spec: {containers: [{name: a, securityContext: "
         "{privileged: true}}]}}}", "privileged"),
        ("deployment", "spec: {$setElementOrder/containers: []}", "only $patch: delete"),
        ("deployment", "spec: {$patch: merge}", "only $patch: delete"),
        ("deployment", "spec: {until: 2026-01-01}", "spec.until: has to be quoted"),
    ],
)  # fmt: skip
def test_what_is_not_taken_says_why(name, text, message):
    with pytest.raises(BadOverlay, match=message.replace("$", r"\$")):
        read_overlays({name: text})


@pytest.mark.parametrize("text", ["spec: {ports: [{name: a}]}", "spec: {ports: [1]}"])
def test_an_element_without_its_key_is_refused(text):
    with pytest.raises(BadOverlay, match="ports"):
        laid(text, "service", SERVICE)


def test_an_empty_piece_says_nothing():
    assert read_overlays({"deployment": "\n", "service": "spec: {type: LoadBalancer}"}) == {
        "service": {"spec": {"type": "LoadBalancer"}}
    }
