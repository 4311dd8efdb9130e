"""A queue that is fair between pods, and between the sources of a pod: each has its turn, however many pieces
the others have put in."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Pieces by pod and source; those of one source stay in order."""

    __slots__ = ("_length", "_pods")

    def __init__(self) -> None:
        self._pods: dict[Hashable, dict[Hashable, deque[T]]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, pod: Hashable, source: Hashable, piece: T) -> None:
        """Put a piece behind the others of its source; a source that had none is the last of its pod."""
        self._pods.setdefault(pod, {}).setdefault(source, deque()).append(piece)
        self._length += 1

    def pull(self) -> T:
        """The next piece; its pod, and its source within the pod, go to the end. There has to be one."""
        pod = next(iter(self._pods))
        sources = self._pods.pop(pod)
        source = next(iter(sources))
        pieces = sources.pop(source)
        piece = pieces.popleft()
        if pieces:
            sources[source] = pieces
        if sources:
            self._pods[pod] = sources
        self._length -= 1
        return piece
