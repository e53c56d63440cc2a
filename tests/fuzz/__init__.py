"""Fuzzers, one a door: bytes of strangers come in, and what was promised must hold whatever they are.

``python -m tests.fuzz DOOR --seconds N`` runs one. Half of the time goes to bytes that a coverage-guided fuzzer
changes (atheris, over the corpus in ``corpus/DOOR/``), half to structures that hypothesis builds. An input that breaks
a promise is cut down and kept; put into the corpus, it stays there for good.
"""
