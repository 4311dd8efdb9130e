"""What is wrong with manifests is said once, and once that it is over; what was taken over is one line."""

from types import SimpleNamespace

from ztunnel.control.source.change import difference
from ztunnel.control.source.inventory import Inventory, gather
from ztunnel.control.source.report import ManifestReport
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.readiness import Readiness

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: ns}\n"
BAD = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: ns}
spec: {rulez: []}
"""


class Reported:
    """A report with a folder of which the texts are given, and what was said."""

    def __init__(self):
        self.said = []
        self.readiness, self.figures = Readiness(), Figures()
        self.inventory = Inventory()
        levels = {name: self.level(name) for name in ("info", "warn", "error")}
        self.report = ManifestReport(SimpleNamespace(**levels), self.readiness, "istio-system")
        self.report.register(self.figures)

    def level(self, name):
        return lambda message, **fields: self.said.append((name, message, fields))

    def take(self, *warnings, **files):
        """What is said when these files are there."""
        before, self.said[:] = self.inventory, []
        self.inventory = gather({f"{name}.yaml": text for name, text in files.items()}, before)
        change = difference(before, self.inventory)
        folder = SimpleNamespace(
            faults=self.inventory.faults, warnings=warnings, inventory=self.inventory, change=change
        )
        self.report.observe(folder)
        return list(self.said)

    def body(self):
        return self.readiness.render(0.0)[1]


def test_the_first_state_is_a_count_and_every_other_one_is_told_by_names():
    reported = Reported()
    assert reported.take(a=POD) == [("info", "manifests read", {"objects": 1})]
    changed = POD.replace("}", ", labels: {x: y}}")
    assert reported.take(a=changed) == [("info", "manifests taken over", {"changed": "Pod ns/a"})]
    assert reported.take(a=f"# moved\n{changed}") == []


def test_a_fault_is_said_once_and_once_when_it_is_gone():
    reported = Reported()
    reported.take(a=POD)
    fault = "b.yaml:1: apiVersion and kind are needed"
    assert reported.take(a=POD, b="x: 1\n") == [
        ("error", "manifest refused; what was good of it before stays in force", {"fault": fault})
    ]
    assert reported.take(a=POD, b="x: 1\n") == []
    assert "manifests: b.yaml:1: apiVersion" in reported.body()
    assert reported.take(a=POD, b="x: 1\n", c="- 1")[0][0] == "error"
    assert reported.take(a=POD, c="- 1") == [("info", "manifest fault is gone", {"fault": fault})]
    assert [message for _, message, _ in reported.take(a=POD)] == [
        "manifest fault is gone",
        "all manifests are good again",
    ]
    assert reported.body() == "ready\n"


def test_very_many_faults_are_some_lines():
    reported = Reported()
    said = reported.take(**{f"f{n}": "x: 1\n" for n in range(500)})
    assert len(said) == 22
    assert said[-1][2] == {"fault": "and 480 more"}
    assert len(reported.body()) < 2000


def test_a_file_of_many_faults_does_not_hide_those_of_others():
    reported = Reported()
    said = reported.take(a="x: 1\n---\n" * 3000, z="x: 1\n")
    assert [fields["fault"].partition(": ")[2] for _, _, fields in said[-2:]] == [
        "and 2995 more",
        "apiVersion and kind are needed",
    ]
    assert "z.yaml:1: apiVersion" in reported.body()
    gone = [message for _, message, _ in reported.take()]
    assert gone == ["manifest fault is gone"] * 7 + ["all manifests are good again"]


def test_warnings_are_said_once():
    reported = Reported()
    assert ("warn", "careful", {}) in reported.take("careful", a=POD)
    assert reported.take("careful", a=POD) == []
    assert reported.take(a=POD) == []
    assert reported.take("careful", a=POD) == [("warn", "careful", {})]


def test_a_policy_that_is_not_taken_over_is_named_with_its_pods():
    reported = Reported()
    reported.take(a=POD)
    _, warned = reported.take(a=POD, p=BAD)
    fields = {"policy": "ns/p", "kind": "AuthorizationPolicy", "in_force": "none", "pods": "ns/a"}
    assert warned == ("warn", "a policy is not taken over as it is written", fields)
    samples = {family.name: list(family.samples) for family in reported.figures.families()}
    assert samples["ztunnel_manifest_faults"] == [((), 1)]
    assert samples["ztunnel_policy_faults"] == [(("AuthorizationPolicy", "ns/p", "none"), 1)]
    assert "policies: AuthorizationPolicy ns/p (p.yaml:4: spec.rulez" in reported.body()
    assert reported.report.dump()["policyFaults"][0]["pods"] == ["ns/a"]
    reported.take(a=POD)
    assert "ztunnel_policy_faults" not in {family.name for family in reported.figures.families()}
