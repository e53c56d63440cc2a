"""Text from outside, made safe for a log or a terminal."""

from __future__ import annotations


def clean(text: str, limit: int | None = None) -> str:
    r"""One line without control characters, terminal escapes or changes of direction: ``\x1b``, ``\n``, ``\u202e``.

    Parameters
    ----------
    limit : int, optional
        Longer text is cut, with an ellipsis at its end.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
