"""One error out of the groups that nurseries raise it in, for callers that handle errors one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ungrouped() -> Iterator[None]:
    """The first error of a group stands for all: tasks of one block that fail together do so for one
    reason. A group of cancellations alone stays as it is."""
    try:
        yield
    except BaseExceptionGroup as group:
        found = next((leaf for leaf in _leaves(group) if isinstance(leaf, Exception)), None)
        if found is None:
            raise
        raise found from found.__cause__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
