"""``python -m tests.soak``: hours of a hospital, with deaths in between; at the end every count agrees.

Eight senders bring studies through both doors: whole, twice, with a late slice, broken off, urgent among routine, with
objects that are none. The listener and the worker are killed at random, and the PACS that gets the results comes and
goes. What must agree is counted outside of Firstread: by the senders, which know what was acknowledged to them, and by
the PACS, which is asked what it holds.
"""
