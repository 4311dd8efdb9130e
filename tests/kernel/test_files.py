"""A process may open as many files as it can be allowed."""

from __future__ import annotations

import resource

from ztunnel.kernel import files


def test_the_limit_is_raised_to_what_may_be_had() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        files.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
