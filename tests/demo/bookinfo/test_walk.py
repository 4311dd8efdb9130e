import os

import pytest

from ztunnel.demo import find
from ztunnel.demo.bookinfo import spread
from ztunnel.demo.bookinfo.place import Bookinfo
from ztunnel.demo.bookinfo.walk import application, walk
from ztunnel.demo.claims.claim import Claim, Findings
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.operate import Laboratory

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def stumble(place: Bookinfo, findings: Findings) -> None:
    raise LaboratoryFailed("a stone in the way")


def look(place: Bookinfo, findings: Findings) -> None:
    """What the steps rely on, in a laboratory that is there."""
    before = place.asked("details-v1")
    answered = [visit.status for visit in place.look(3, user="jason", parallel=1)]
    findings.note(f"jason was answered {answered}", answered == [200] * 3)
    findings.note("probes do not count", place.asked("details-v1") == before + 3)
    place.apply("bookinfo-versions")
    place.apply("bookinfo-versions")  # what changes nothing is not waited for
    services = {service.name for service in place.laboratory.cluster().services}
    findings.note("a change is applied", "reviews-v3" in services)
    with pytest.raises(LaboratoryFailed, match="ValueError"):
        place.look(1, headers=["no header"])
    with pytest.raises(LaboratoryFailed, match="not within 0 s: the moon"):
        place.until("the moon", lambda: False, seconds=0.0)


def test_a_walk_shows_every_step_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    laboratory = Laboratory(f"b{os.getpid()}x1")
    steps = [Claim(1, "Stumble", "by stumbling", stumble), Claim(2, "Look", "by looking", look), spread.STEP]
    assert not walk(laboratory, steps, keep=False)
    printed = capsys.readouterr().out
    assert "Bookinfo, 8 pods, is up" in printed
    assert "not measured to its end: a stone in the way" in printed
    assert "2 of 3 claims hold" in printed
    assert not find.exists(laboratory.names)


def test_the_application_is_whole() -> None:
    kinds = [one.key.kind for one in application().manifests]
    assert (kinds.count("Deployment"), kinds.count("Gateway"), kinds.count("Namespace")) == (7, 1, 1)
