"""The root of the errors that a person can act on."""

from __future__ import annotations


class FirstreadError(Exception):
    """Something that a person can put right; its text says what and how. The command line prints it as one line."""

    exit_code = 1
