import pytest

from ztunnel.demo.kinds import Standing, is_read, standing, why_left_out


@pytest.mark.parametrize(
    ("api_version", "kind", "expected"),
    [
        ("v1", "Pod", Standing.READ),
        ("security.istio.io/v1beta1", "AuthorizationPolicy", Standing.READ),
        ("apps/v1", "Deployment", Standing.WORKLOAD),
        ("batch/v1", "Job", Standing.WORKLOAD),
        ("v1", "ReplicationController", Standing.WORKLOAD),
        ("v1", "ConfigMap", Standing.READ),
        ("v1", "Secret", Standing.READ),
        ("v1", "PodTemplate", Standing.LEFT_OUT),
        ("batch/v1", "CronJob", Standing.LEFT_OUT),
        ("security.istio.io/v1", "RequestAuthentication", Standing.READ),
        ("networking.k8s.io/v1", "Ingress", Standing.LEFT_OUT),
        # Other groups have kinds of the same names.
        ("serving.knative.dev/v1", "Service", Standing.LEFT_OUT),
        ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy", Standing.LEFT_OUT),
        ("batch.volcano.sh/v1alpha1", "Job", Standing.LEFT_OUT),
    ],
)
def test_what_becomes_of_a_kind(api_version: str, kind: str, expected: Standing) -> None:
    assert standing(api_version, kind) is expected
    assert is_read(api_version.rpartition("/")[0], kind) is (expected is not Standing.LEFT_OUT)


@pytest.mark.parametrize(
    ("api_version", "kind", "message"),
    [
        ("security.istio.io/v1", "AuthorizationPolicie", "did you mean AuthorizationPolicy?"),
        ("v1", "pod", "did you mean Pod?"),
        ("v1", "Servcie", "did you mean Service?"),
        ("apps/v1", "Deploymnet", "did you mean Deployment?"),
        ("v1", "Whatever", "there are: Binding, ComponentStatus"),
        ("v1", "Deployment", "Deployment is of apiVersion apps/v1"),
        ("v1", "AuthorizationPolicy", "AuthorizationPolicy is of apiVersion security.istio.io/v1"),
        ("security.istio.oi/v1", "PeerAuthentication", "is of apiVersion security.istio.io/v1"),
        ("app/v1", "StatefulSet", "is of apiVersion apps/v1"),
        ("extensions/v1beta1", "Deployment", "is of apiVersion apps/v1"),
        ("apps/v1", "Pod", "no kind 'Pod' in apps"),
        ("apps/v1beta2", "Deployment", "Deployment is read in the version apps/v1"),
    ],
)
def test_a_slip_within_a_group_that_is_read_is_an_error(api_version: str, kind: str, message: str) -> None:
    found = standing(api_version, kind)
    assert isinstance(found, str)
    assert message in found


def test_a_schedule_is_not_run() -> None:
    assert why_left_out("CronJob").startswith("not run")
    assert why_left_out("PodTemplate") == "not read"
