"""One text from the many files of `bpf/`: bcc sees map calls only in the main text, not in included
headers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

_INCLUDE = re.compile(r'^#include "([^"]+)"$')


def assemble(files: Mapping[str, str], name: str = "redirect.c") -> str:
    """The text of `name` with every local include in place, each line keeping its file and number.

    Args:
        files: path below `bpf/` (`lib/types.h`) to text.

    Raises:
        KeyError: an include that is not in `files`.
    """
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(files[name].splitlines(), start=1):
        include = _INCLUDE.match(line)
        if include:
            lines += [assemble(files, include[1]), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines)


def fingerprint(text: str, flags: tuple[str, ...]) -> str:
    """What makes two loads equal: 16 hex digits over the text and the compiler's flags. Not its version: what
    runs goes on running where the compiler is replaced, or removed."""
    whole = "\0".join((text, *flags))
    return hashlib.sha256(whole.encode()).hexdigest()[:16]
