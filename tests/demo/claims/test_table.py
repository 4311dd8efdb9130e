import io

from rich.console import Console

from ztunnel.demo.claims.claim import Claim, Finding, Outcome
from ztunnel.demo.claims.table import complaints, progress, summary, table

CLAIM = Claim(3, "Addresses are true", "by asking both ends", lambda shop, findings: None)
GOOD = Outcome(CLAIM, (Finding("12 of 12", True),), 0.25)
BAD = Outcome(CLAIM, (Finding("12 of 12", True), Finding("[2 of 3]", False)), 0.25, "the node is gone")


def rendered(what: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_row_has_claim_check_figures_and_verdict() -> None:
    row = next(line for line in rendered(table([GOOD])).splitlines() if "Addresses" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["3", "Addresses are true", "by asking both ends", "12 of 12", "PASS"]


def test_a_row_says_what_speaks_against_the_claim_without_colours_too() -> None:
    text = rendered(table([BAD]), width=160)
    assert "FAIL" in text
    assert "not so: [2 of 3]" in text
    assert "the node is gone" in text
    assert complaints(BAD) == ["not so: [2 of 3]", "not measured to its end: the node is gone"]


def test_a_long_word_is_never_cut() -> None:
    word = "spiffe://cluster.local/ns/shop/sa/" + "x" * 60
    text = rendered(table([Outcome(CLAIM, (Finding(word, True),), 0.1)]), width=80)
    figures = "".join(line.split("│")[4].strip() for line in text.splitlines() if line.startswith("│"))
    assert word in figures


def test_progress_is_a_line_and_what_speaks_against_the_claim() -> None:
    assert progress(GOOD).plain.startswith(" 3 Addresses are true ....")
    assert progress(GOOD).plain.endswith("PASS   0.2 s")
    assert progress(BAD).plain.splitlines()[1:] == [
        "   not so: [2 of 3]",
        "   not measured to its end: the node is gone",
    ]


def test_the_summary_counts() -> None:
    assert summary([GOOD, BAD], 20.4).plain == "1 of 2 claims hold (20 s in all)"
