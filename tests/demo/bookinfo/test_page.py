from ztunnel.demo.bookinfo.page import index_page, product_page

REVIEWS = {
    "podname": "reviews-v2-<b>",
    "reviews": [
        {"reviewer": "R1", "text": "good <script>", "rating": {"stars": 4, "color": "black"}},
        {"reviewer": "R2", "text": "bad", "rating": {"error": "none & more"}},
        {"reviewer": "R3", "text": "so so"},
    ],
}
DETAILS = {
    "type": "paperback",
    "pages": 200,
    "publisher": "P<",
    "language": "English",
    "ISBN-10": "1",
    "ISBN-13": "2",
}


def test_the_page_shows_what_the_services_say_and_runs_none_of_it() -> None:
    page = product_page("jason", (200, DETAILS), (200, REVIEWS))
    assert "<h1>The Comedy of Errors</h1>" in page
    assert "<dt>publisher:</dt><dd>P&lt;</dd>" in page
    assert '<p class="stars black">★★★★☆</p>' in page
    assert "none &amp; more" in page
    assert '<dd id="served-by">reviews-v2-&lt;b&gt;</dd>' in page
    assert "<script>" not in page
    assert "jason" in page
    assert "sign out" in page


def test_what_failed_is_said_and_the_rest_is_shown() -> None:
    page = product_page("", (200, DETAILS), (500, {"error": "Sorry, <no> reviews"}))
    assert "Error fetching product reviews!" in page
    assert "Sorry, &lt;no&gt; reviews" in page
    assert "paperback" in page
    assert "Sign in" in page
    assert "Error fetching product details!" in product_page("", (0, None), (200, REVIEWS))


def test_stars_are_five_at_most() -> None:
    many = {"reviews": [{"reviewer": "R", "text": "t", "rating": {"stars": 10**9, "color": "red"}}]}
    assert "★★★★★</p>" in product_page("", (200, DETAILS), (200, many))


def test_the_first_page_leads_to_the_others() -> None:
    page = index_page("", {"productpage": {"details": "http://details:9080/details"}, "details": {}})
    assert 'href="/productpage?u=normal"' in page
    assert "<td>productpage</td><td>http://details:9080/details</td>" in page
    assert "<td>details</td><td>-</td>" in page
