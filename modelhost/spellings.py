"""Where a text spells a control token, found in one pass however many of them there are.

Some vocabularies have thousands (Gemma: 6,400). As plain alternatives of a pattern each would be
tried at each place, and Python runs nothing else meanwhile: a prompt of a megabyte of `<` would
stop the whole process for most of a minute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from os.path import commonprefix


class Spellings:
    """The control tokens of one tokenizer, as texts.

    normalize: what the tokenizer makes of a text before it looks for those of its added tokens that
    it does not look for in the text as it stands: full width may become ASCII, or capitals small.
    """

    def __init__(self, spellings: Iterable[str], normalize: Callable[[str], str]) -> None:
        self._normalize = normalize
        listed = {spelling for spelling in spellings if spelling}
        self._plain = _pattern(listed)
        self._any = _pattern(listed | {normalize(spelling) for spelling in listed} - {""})

    def places(self, text: str) -> list[int]:
        """Where one begins in the text as it stands, overlapping ones included."""
        return [match.start() for match in self._plain.finditer(text)]

    def are_in(self, text: str) -> bool:
        """Whether a tokenizer that splits no control tokens could find one in this text."""
        return any(self._any.search(each) for each in (text, self._normalize(text)))


def _pattern(spellings: set[str]) -> re.Pattern[str]:
    return re.compile(f"(?={_tree(spellings)})" if spellings else r"(?!)")


def _tree(spellings: set[str]) -> str:
    """What they begin with in common, then a branch for each way on; none behind a whole one."""
    shared = commonprefix([*spellings])  # noqa: RUF071  of characters, as it should be
    rests = sorted(spelling[len(shared) :] for spelling in spellings)
    if not rests[0]:
        return re.escape(shared)
    branches = [_tree({*rest}) for _, rest in groupby(rests, key=itemgetter(0))]
    return f"{re.escape(shared)}(?:{'|'.join(branches)})"
