"""Faults at every step of the way, on real processes: killed, full, read-only, too few; and what becomes of it.

``python -m tests.grid`` runs the whole grid and writes ``docs/reliability/grid.json``, of which a table of
``docs/reliability.md`` is made. A cell is one fault at one moment; after it a site must serve as before, with nothing
lost, nothing there twice and nothing left over.
"""
