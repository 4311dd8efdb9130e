"""What programs of others on the hooks of cgroups mean to a mesh, as checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from ztunnel.analyze.checks import Check, State
from ztunnel.redirect.neighbour import Placed

OTHERS = "others on this machine"
_SHOWN = 5
_SHARE = "it was attached without BPF_F_ALLOW_MULTI: whoever did so has to allow others, or leave"
_REWRITES = {
    False: "where it rewrites addresses, the mesh sees other calls than applications make",
    True: "captured calls that it sends elsewhere are dropped",
}


def hook_checks(found: Sequence[Placed], whose: Callable[[str], str]) -> list[Check]:
    """One for each hook that others are on, or one that says that there are none.

    Args:
        whose: whose a program of that name is, and what to set there; "" where it is not known.
    """
    if not found:
        return [Check(OTHERS, "programs on cgroup hooks", State.OK, "none of others")]
    by_hook = groupby(sorted(found, key=lambda each: each.hook), key=lambda each: each.hook)
    return [_check(hook, list(each), whose) for hook, each in by_hook]


def _check(hook: str, there: Sequence[Placed], whose: Callable[[str], str]) -> Check:
    shown = [_place(each) for each in there[:_SHOWN]]
    if len(there) > _SHOWN:
        shown.append(f"and {len(there) - _SHOWN} more")
    name, text = f"cgroup/{hook}", ", ".join(shown)
    if any(each.exclusive and each.cgroup == "/" for each in there):
        return Check(OTHERS, name, State.FAIL, f"exclusive: {text}", _SHARE)
    known = next((fix for each in there if (fix := whose(each.name))), "").removeprefix(". ")
    found = f"programs of others: {text}"
    if hook.startswith("connect"):
        fix = known or _REWRITES[all(each.after for each in there)]
        return Check(OTHERS, name, State.WARN, found, fix)
    return Check(OTHERS, name, State.WARN if known else State.OK, found, known)


def _place(one: Placed) -> str:
    order = "after ours" if one.after else "before ours"
    return f"{one.text} {order}" if one.cgroup == "/" else f"{one.text} {order} on {one.cgroup}"
