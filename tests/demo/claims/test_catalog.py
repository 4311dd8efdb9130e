from ztunnel.demo.claims.catalog import CLAIMS


def test_the_claims_are_numbered_in_the_order_in_which_they_are_measured() -> None:
    assert [claim.number for claim in CLAIMS] == list(range(1, len(CLAIMS) + 1))


def test_every_claim_says_what_it_is_and_how_it_is_checked() -> None:
    assert all(claim.title and claim.how for claim in CLAIMS)
    assert len({claim.title for claim in CLAIMS}) == len(CLAIMS)
