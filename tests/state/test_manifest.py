"""Manifests are cut and read with a fault for each wrong thing, and nothing in them can hurt the process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.state.manifest import MAX_DEPTH, Notes, TooLarge, compose, cut


def read(text):
    notes = Notes()
    return compose(text, notes), notes.faults


def faults_of(text, use):
    notes = Notes()
    use(compose(text, notes))
    return [(fault.line, fault.field, fault.message) for fault in notes.faults]


def test_documents_are_cut_at_their_markers_with_their_lines():
    chunks = cut("a: 1\n---\nb: 2\n--- # c\nc: |\n  ---\n")
    assert [(chunk.line, chunk.text) for chunk in chunks] == [
        (1, "a: 1\n"),
        (2, "---\nb: 2\n"),
        (4, "--- # c\nc: |\n  ---\n"),
    ]


@given(st.text("-a: \n#", max_size=60))
def test_what_is_cut_adds_up_to_the_file(text):
    chunks = cut(text)
    assert "".join(chunk.text for chunk in chunks) == text
    lines = [1 + text[: len("".join(c.text for c in chunks[:n]))].count("\n") for n in range(len(chunks))]
    assert [chunk.line for chunk in chunks] == lines


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~\n", "--- # nothing\n"])
def test_a_document_with_nothing_in_it_is_nothing(text):
    assert read(text) == (None, [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1\n", 2),
        ("a: b: c\n", 1),
        ("\ta: 1\n", 1),
        ("x: 1\na: 'b\n", 3),
        ("a: *b\n", 1),
        ("a: \x01\n", 1),
    ],
)
def test_what_is_not_yaml_is_a_fault_with_its_line(text, line):
    root, (fault,) = read(text)
    assert root is None
    assert (fault.line, fault.message.startswith("not YAML: ")) == (line, True)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "- " * 100_000 + "x", "".join(" " * n + "a:\n" for n in range(3000)), "{a: " * 2000],
)
def test_nesting_without_end_is_a_fault(text):
    _, (fault,) = read(text)
    assert fault.message in (f"nested deeper than {MAX_DEPTH} levels", "not YAML: nested too deep")


def test_a_key_that_stands_twice_is_a_fault_at_the_second():
    root, _ = read("a: 1\nb:\n- c: 1\n  c: 2\na: 3\n")
    notes = root._notes
    root.note_duplicates()
    assert sorted((fault.line, fault.field) for fault in notes.faults) == [(4, "b[0].c"), (5, "a")]
    notes.faults.clear()
    root.note_duplicates(apart_from="b")
    assert [fault.field for fault in notes.faults] == ["a"]


def test_a_document_that_contains_itself_is_looked_through_once():
    root, _ = read("a: &a [*a, {b: 1, b: 2}]\n")
    root.note_duplicates()
    assert [fault.field for fault in root._notes.faults] == ["a[1].b"]


def test_a_byte_order_mark_may_begin_each_document():
    chunks = cut("\ufeffa: 1\n\ufeff---\nb: 2\n")
    assert [(chunk.line, read(chunk.text)[1]) for chunk in chunks] == [(1, []), (2, [])]
    assert read("a: b\ufeff\n")[0].text("a") == "b\ufeff"


def test_aliases_of_aliases_come_to_an_end():
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} {[f'*a{n - 1}'] * 10}\n".replace("'", "") for n in range(1, 9)
    )
    notes = Notes(reads=10_000)
    root = compose(text, notes)
    assert root is not None
    assert notes.faults == []

    def walk(place):
        for _, below in place.pairs():
            for _ in range(10_000):
                below.each("x")
                below.sub("x")
                place.sub("a0")

    with pytest.raises(TooLarge):
        walk(root)


def test_a_document_that_contains_itself_is_read():
    root, faults = read("a: &a [*a]\n")
    assert faults == []
    (below,) = root.each("a")
    assert below.path == "a[0]"


def test_paths_name_fields_elements_and_free_keys():
    root, _ = read("spec:\n  rules:\n  - from: x\nlabels: {a.b/c: 1}\n")
    assert root.sub("spec").each("rules")[0].sub("from").path == "spec.rules[0].from"
    ((_, label),) = root.sub("labels").pairs()
    assert label.path == "labels[a.b/c]"


def test_null_is_absent():
    root, faults = read("a: ~\nb: null\nc:\n")
    assert [root.sub(name) for name in "abc"] == [None] * 3
    assert (root.text("a", "d"), root.each("b"), root.flag("c"), faults) == ("d", [], False, [])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("80", "must be a string, is a number; write it in quotes"),
        ("yes", "must be a string, is a boolean; write it in quotes"),
        ("1.5", "must be a string, is a number; write it in quotes"),
        ("[a]", "must be a string, is a list"),
        ("{a: b}", "must be a string, is a mapping"),
        ("!x y", "must be a string, is of the tag !x"),
    ],
)
def test_what_is_no_string_is_a_fault(value, message):
    assert faults_of(f"x:\n  a: {value}\n", lambda root: root.sub("x").text("a")) == [(2, "x.a", message)]


def test_a_plain_time_is_a_string():
    assert read("a: 2026-01-02T03:04:05Z\n")[0].text("a") == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(("value", "number"), [("0", 0), ("-3", -3), ("65535", 65535)])
def test_decimal_numbers_are_read(value, number):
    assert read(f"a: {value}\n")[0].sub("a").as_number() == number


@pytest.mark.parametrize("value", ["'80'", "0x50", "010", "1:30", "8_0", "1.0", "true", "9" * 5000])
def test_other_numbers_are_faults(value):
    ((line, field, message),) = faults_of(f"a: {value}\n", lambda root: root.sub("a").as_number())
    assert (line, field) == (1, "a")
    assert message.startswith("must be a decimal number, is ")


@pytest.mark.parametrize(
    ("value", "number"), [("0", 0), ("-3", -3), ("0.1", 0.1), (".5", 0.5), ("2.", 2), ("1.0e-3", 0.001)]
)
def test_numbers_with_a_fraction_are_read(value, number):
    assert read(f"a: {value}\n")[0].sub("a").as_decimal() == number


@pytest.mark.parametrize("value", [".nan", ".inf", "'0.5'", "1_0.5", "true", "0x10", "9" * 5000, "1.0e+999"])
def test_what_is_no_number_with_a_fraction_is_a_fault(value):
    ((line, field, message),) = faults_of(f"a: {value}\n", lambda root: root.sub("a").as_decimal())
    assert (line, field) == (1, "a")
    assert message.startswith("must be a decimal number, is ")


@pytest.mark.parametrize(("value", "flag"), [("true", True), ("false", False), ("True", True)])
def test_booleans_are_read(value, flag):
    assert read(f"a: {value}\n")[0].flag("a") is flag


def test_other_booleans_and_lists_are_faults():
    def use(root):
        assert root.flag("a") is False
        assert root.each("a") == []
        assert not root.sub("a").is_mapping()

    messages = [message for _, _, message in faults_of("a: 'true'\n", use)]
    assert messages == [f"must be {what}, is a string" for what in ("a boolean", "a list", "a mapping")]


def test_unknown_fields_are_faults_with_a_guess():
    faults = faults_of("sepc: 1\nzzz: 1\nspec: 1\n", lambda root: root.only(["spec", "metadata"]))
    assert faults == [(1, "sepc", "unknown field; did you mean spec?"), (2, "zzz", "unknown field")]


def test_fields_that_may_be_new_are_faults_only_where_they_look_like_a_slip():
    def use(root):
        root.only(["hostNetwork", "hostPID"], similar_to=["hostNetwork"])

    assert faults_of("hostNetwrok: 1\nhostPID: 1\nbrandNew: 1\n", use) == [
        (1, "hostNetwrok", "unknown field; did you mean hostNetwork?")
    ]


def test_a_key_that_is_no_name_is_a_fault():
    assert faults_of("{[a]: b}\n", lambda root: root.only(["a"])) == [(1, "", "a key must be a string")]
