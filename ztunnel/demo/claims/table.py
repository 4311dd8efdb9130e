"""The table of what was found: claim, how it was checked, the figures, PASS or FAIL."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ztunnel.demo.claims.claim import Outcome


def table(outcomes: Sequence[Outcome]) -> Table:
    """One row for each claim; what speaks against one says so, for those who see no colours."""
    made = Table(box=box.ROUNDED, show_lines=True, expand=True)
    made.add_column("", justify="right")
    made.add_column("Claim", ratio=5)
    made.add_column("How it was checked", ratio=6, overflow="fold")
    made.add_column("Figures", ratio=11, overflow="fold")
    made.add_column("", no_wrap=True)
    for outcome in outcomes:
        claim = outcome.claim
        made.add_row(str(claim.number), claim.title, claim.how, _figures(outcome), verdict(outcome))
    return made


def verdict(outcome: Outcome) -> Text:
    """PASS or FAIL."""
    return Text("PASS", "bold green") if outcome.holds else Text("FAIL", "bold red")


def progress(outcome: Outcome) -> Text:
    """The line that tells of a claim as soon as it is measured."""
    claim = outcome.claim
    line = Text(f"{claim.number:>2} {claim.title} ".ljust(78, "."), "")
    line.append(" ").append_text(verdict(outcome)).append(f" {outcome.seconds:5.1f} s")
    for against in complaints(outcome):
        line.append(f"\n   {against}", "red")
    return line


def complaints(outcome: Outcome) -> list[str]:
    """What speaks against a claim."""
    against = [f"not so: {each.text}" for each in outcome.found if not each.holds]
    if outcome.error:
        against.append(f"not measured to its end: {outcome.error}")
    return against


def _figures(outcome: Outcome) -> Text:
    text = Text("\n").join(Text(each.text) for each in outcome.found if each.holds)
    for against in complaints(outcome):
        text.append(f"\n{against}" if text else against, "red")
    return text


def summary(outcomes: Sequence[Outcome], seconds: float) -> Text:
    """How many claims hold, in how much time."""
    held = sum(outcome.holds for outcome in outcomes)
    line = Text(
        f"{held} of {len(outcomes)} claims hold", "bold green" if held == len(outcomes) else "bold red"
    )
    return line.append(f" ({seconds:.0f} s in all)", "not bold default")
