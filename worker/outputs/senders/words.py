"""What receivers say in their answers, fit for a status."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from firstread.text import clean

WORDS_LIMIT = 200
"""Characters of a receiver's own words in a status."""


def without(words: str, private: Sequence[str]) -> str:
    """Words of a receiver, not too many of them, without the values that no status may hold.

    A value of fewer than four characters is taken out where it stands alone. Accents may be written apart from their
    letters, in the words or in the values (NFC of both is compared).
    """
    words = unicodedata.normalize("NFC", words)
    for value in sorted((unicodedata.normalize("NFC", value) for value in private), key=len, reverse=True):
        pattern = re.escape(value) if len(value) >= 4 else rf"(?<!\w){re.escape(value)}(?!\w)"
        words = re.sub(pattern, "***", words, flags=re.IGNORECASE)
    return clean(words, WORDS_LIMIT)
