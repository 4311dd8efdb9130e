from ztunnel.demo.bookinfo.page import product_page
from ztunnel.demo.bookinfo.visit import Visit, parse, read_page, render, statuses, versions

REVIEW = {"reviewer": "R", "text": "t", "rating": {"stars": 3, "color": "red"}}


def test_what_the_page_shows_is_read() -> None:
    said = {"podname": "reviews-v3-6ff8-x", "reviews": [REVIEW, REVIEW]}
    visit = read_page(200, 0.5, product_page("", (200, {}), (200, said)))
    assert visit == Visit(200, 0.5, "reviews-v3-6ff8-x", "red")
    assert visit.version == "v3"


def test_what_failed_is_read() -> None:
    said = {"podname": "reviews-v2-a-b", "reviews": [{**REVIEW, "rating": {"error": "Ratings are gone"}}]}
    page = product_page("", (500, {"error": "Sorry"}), (200, said))
    assert read_page(200, 0.0, page).errors == ("Error fetching product details!", "Ratings are gone")
    assert read_page(503, 0.0, "no healthy upstream") == Visit(503, 0.0)
    assert Visit(0, 0.0).version == ""


def test_visits_pass_through_a_line_and_are_counted() -> None:
    visits = (Visit(200, 1.0, "reviews-v1-a", "", ("e",)), Visit(200, 2.0, "reviews-v1-b"), Visit(0, 3.0))
    assert "\n" not in render(visits)
    assert parse(render(visits)) == visits
    assert versions(visits) == {"v1": 2, "": 1}
    assert statuses(visits) == {200: 2, 0: 1}
