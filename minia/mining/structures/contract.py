"""What links words into structures, for a linkage from elsewhere: ``_target_`` of the key ``mining.linkage``."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from minia.mining.lists.listdb import ListDB


@runtime_checkable
class Linkage(Protocol):
    """Links co-occurring sets of words into structures."""

    def link(self, sets: ListDB, bags: ListDB, seed: int) -> ListDB:
        """The structures.

        Args:
            sets: the co-occurring sets: a list a set, its items words, ascending.
            bags: the bags of words that they were mined from: a list an image.
            seed: of everything random: the same seed must give the same structures.

        Returns:
            A list a structure: its words, the most important first, each once, and as frequencies numbers of at
            least 1 that say how important they are; words are numbered as in the bags.
        """
        ...
