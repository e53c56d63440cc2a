"""What may go wrong with a job. ``reason`` is the code that is stored, counted and documented."""

from __future__ import annotations

import re


class WorkerError(Exception):
    """An error with a code of its own."""

    reason = "worker_error"


class LeaseLost(WorkerError):
    """The job belongs to somebody else by now; whatever was computed is dropped."""

    reason = "lease_lost"


class NonFiniteScore(WorkerError):
    """A model gave NaN or Inf: a failure, not a score."""

    reason = "non_finite_score"


class NoServingPackage(WorkerError):
    """No package that passed its self-test serves the pipeline; the job waits."""

    reason = "no_serving_package"


class EngineError(WorkerError):
    """The device refused the batch, or the engine has ended."""

    reason = "engine_error"


class EngineTimeout(EngineError):
    """The device did not answer within the limit."""

    reason = "engine_timeout"


class FilesMissing(WorkerError):
    """None of the revision's files is in the spool, or none can be read."""

    reason = "files_missing"


def reason_of(error: BaseException) -> str:
    """The code of an error: its own ``reason``, else its class name in snake case."""
    own = getattr(error, "reason", None)
    if isinstance(own, str) and re.fullmatch(r"[a-z][a-z0-9_]{1,60}", own):
        return own
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).lower()


def describe(error: BaseException) -> str:
    """Class and place of an error, without its text: that may hold values of a data set."""
    from firstread.logs import frames_of

    frames = frames_of(error, last=3)
    return f"{type(error).__name__} at {' > '.join(frames)}" if frames else type(error).__name__
