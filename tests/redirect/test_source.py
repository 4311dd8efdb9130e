from __future__ import annotations

import pytest

from ztunnel.redirect.source import assemble, fingerprint

FILES = {
    "redirect.c": '#include <uapi/linux/bpf.h>\n#include "lib/a.h"\nint last;',
    "lib/a.h": '#include "lib/b.h"\nint a;',
    "lib/b.h": "int b;",
}


def test_includes_stand_in_place_and_lines_keep_their_file_and_number() -> None:
    assert assemble(FILES).splitlines() == [
        '#line 1 "redirect.c"',
        "#include <uapi/linux/bpf.h>",
        '#line 1 "lib/a.h"',
        '#line 1 "lib/b.h"',
        "int b;",
        '#line 2 "lib/a.h"',
        "int a;",
        '#line 3 "redirect.c"',
        "int last;",
    ]


def test_a_missing_include_is_an_error() -> None:
    with pytest.raises(KeyError):
        assemble({"redirect.c": '#include "lib/none.h"'})


def test_a_fingerprint_tells_texts_and_flags_apart() -> None:
    prints = {fingerprint(text, flags) for text in ("a", "b") for flags in ((), ("-DX",))}
    assert len(prints) == 4
    assert fingerprint("a", ()) == fingerprint("a", ())
