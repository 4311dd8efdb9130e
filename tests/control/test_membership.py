from ztunnel.control.membership import set_entry, set_member


def test_a_member_comes_and_goes_and_an_empty_set_is_none() -> None:
    where: dict[str, set[int]] = {}
    set_member(where, "a", 1, True)
    set_member(where, "a", 1, True)
    set_member(where, "a", 2, True)
    assert where == {"a": {1, 2}}
    set_member(where, "a", 1, False)
    set_member(where, "a", 3, False)
    assert where == {"a": {2}}
    set_member(where, "a", 2, False)
    set_member(where, "b", 1, False)
    assert where == {}


def test_an_entry_comes_and_goes_and_an_empty_mapping_is_none() -> None:
    where: dict[str, dict[int, str]] = {}
    set_entry(where, "a", 1, "x")
    set_entry(where, "a", 1, "y")
    set_entry(where, "a", 2, "z")
    assert where == {"a": {1: "y", 2: "z"}}
    set_entry(where, "a", 1, None)
    set_entry(where, "a", 3, None)
    assert where == {"a": {2: "z"}}
    set_entry(where, "a", 2, None)
    set_entry(where, "b", 1, None)
    assert where == {}
