import pytest
import yaml

from ztunnel.demo.template import check_workload
from ztunnel.demo.tree import items
from ztunnel.state.manifest import Notes

GOOD = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  strategy: {type: Recreate}
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        ports:
        - containerPort: 80
"""
JOB = (
    "{apiVersion: batch/v1, kind: Job, metadata: {name: j}, "
    "spec: {template: {spec: {containers: [{name: x}]}}}}"
)
CONTROLLER = (
    "{apiVersion: v1, kind: ReplicationController, metadata: {name: j}, spec: {selector: {app: web}, "
    "template: {metadata: {labels: {app: web}}, spec: {containers: [{name: x}]}}}}"
)


def faults(text: str) -> list[str]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert root is not None
    notes = Notes()
    for item in items(root):
        check_workload(item, notes)
    return [f"{fault.line}: {fault.field}: {fault.message}" for fault in notes.faults]


@pytest.mark.parametrize("text", [GOOD, JOB, CONTROLLER, CONTROLLER.replace("selector: {app: web}, ", "")])
def test_a_good_workload_has_no_faults(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("replicas: 2", "replicas: -1", "7: spec.replicas: must be a number from 0 to 1000"),
        ("replicas: 2", "replicas: 100000", "7: spec.replicas: must be a number from 0 to 1000"),
        ("replicas: 2", "replicas: two", "7: spec.replicas: must be a decimal number, is a string"),
        ("replicas: 2", "replica: 2", "7: spec.replica: unknown field; did you mean replicas?"),
        ("matchLabels: {app: web}", "matchLabels: {app: wep}", "10: spec.selector: does not match"),
        ("matchLabels: {app", "matchLabel: {app", "10: spec.selector.matchLabel: unknown field"),
        ("containerPort: 80", "containerPort: 800000", "18: spec.template.spec.containers[0].ports[0]"),
        ("containerPort: 80", "containerport: 80", "18: spec.template.spec.containers[0].ports[0]"),
        ("labels: {app: web}\n    spec", "lables: {app: web}\n    spec", "13: spec.template.metadata.lables"),
        ("      containers:", "      container:", "16: spec.template.spec.container: unknown field"),
        ("  name: web\nspec", "  nam: web\nspec", "5: metadata.nam: unknown field"),
        ("  template:", "  templates:", "spec: template is missing"),
        ("    spec:", "    specs:", "12: spec.template: spec is missing"),
    ],
)
def test_a_fault_names_the_line_and_field_of_the_users_text(before: str, after: str, fault: str) -> None:
    assert before in GOOD
    found = faults(GOOD.replace(before, after, 1))
    assert any(fault in each for each in found), found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD.partition("spec:")[0], "spec is missing"),
        (GOOD.replace("  selector:\n    matchLabels: {app: web}\n", ""), "spec: selector is missing"),
        (JOB.replace("template", "suspend: 3, template"), "spec.suspend: must be a boolean"),
        (CONTROLLER.replace("selector: {app: web}", "selector: {app: x}"), "spec.selector: does not match"),
    ],
)
def test_what_is_missing_or_does_not_fit(text: str, fault: str) -> None:
    assert any(fault in each for each in faults(text))
