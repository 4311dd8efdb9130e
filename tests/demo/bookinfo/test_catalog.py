from ztunnel.demo.bookinfo.catalog import STEPS


def test_the_steps_are_numbered_in_the_order_in_which_they_are_walked() -> None:
    assert [step.number for step in STEPS] == list(range(1, len(STEPS) + 1))


def test_every_step_says_what_it_is_and_how_it_is_checked() -> None:
    assert all(step.title and step.how for step in STEPS)
    assert len({step.title for step in STEPS}) == len(STEPS)
