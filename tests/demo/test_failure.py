from ztunnel.demo.failure import unknown


def test_the_nearest_names_are_offered() -> None:
    assert str(unknown("pod", "ordrs", ["orders", "load"])).endswith("did you mean orders?")


def test_without_a_near_name_all_are_listed() -> None:
    assert str(unknown("pod", "x", ["b", "a"])).endswith("there are: a, b")
    assert str(unknown("pod", "x", [])).endswith("there are: none")
