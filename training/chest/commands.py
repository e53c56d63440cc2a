"""Commands for chest experiments, to be run as modules or mounted in a command line."""

from __future__ import annotations

from training.chest.blend import blend
from training.chest.compare import compare
from training.chest.stress import stress

COMMANDS = (compare, stress, blend)

__all__ = ["COMMANDS", "blend", "compare", "stress"]
