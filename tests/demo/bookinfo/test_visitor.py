from http.client import HTTPException

import pytest

from tests.demo.bookinfo.conftest import Recorder
from ztunnel.demo.bookinfo.productpage import ProductPage
from ztunnel.demo.bookinfo.service import Answer, json_answer
from ztunnel.demo.bookinfo.visitor import Visitor, visit_all


def test_all_looks_are_made_with_their_headers(start, recorder: Recorder) -> None:
    port = start(recorder.answer).port
    recorder.answers = [Answer(200, b'<p class="stars black">'), json_answer({}, 503)]
    visits = visit_all(Visitor("127.0.0.1", port, "/a", {"x-b3-traceid": "1"}), 7, 3)
    assert sorted(visit.status for visit in visits) == [200] * 6 + [503]
    assert [visit.color for visit in visits].count("black") == 1
    assert {(one.path, one.headers["x-b3-traceid"]) for one in recorder.asked} == {("/a", "1")}


def test_what_is_not_answered_is_a_visit_too() -> None:
    (visit,) = Visitor("127.0.0.1", 1, "/").visit(1)
    assert (visit.status, "refused" in visit.errors[0]) == (0, True)


def test_who_signs_in_stays_so(start, recorder: Recorder) -> None:
    services = dict.fromkeys(
        ("details", "reviews", "ratings"), f"http://127.0.0.1:{start(recorder.answer).port}/x"
    )
    page = start(ProductPage(services, b"key").answer)
    visits = visit_all(Visitor("127.0.0.1", page.port, "/productpage").signed_in("jason"), 2, 1)
    assert [visit.status for visit in visits] == [200, 200]
    assert {one.headers["end-user"] for one in recorder.asked} == {"jason"}


def test_who_cannot_sign_in_is_told(start, recorder: Recorder) -> None:
    port = start(recorder.answer).port
    with pytest.raises(HTTPException, match="jason could not sign in: 200"):
        Visitor("127.0.0.1", port, "/").signed_in("jason")
