"""The way of a study, simulated: the real code in one process, in virtual time, with crashes, power cuts and failures.

A seed makes a history (:mod:`tests.simulation.history`); the same seed makes the same one again.
``python -m tests.simulation --help`` runs many.
"""
