"""What the worker counts. One place, so that documents and alerts can be checked against it."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from firstread.states import JobState

STAGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
RESULT_BUCKETS = (0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 900, 3600)
SCORE_BUCKETS = tuple(i / 20 for i in range(1, 21))
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)

POSITIVE, NEGATIVE = "positive", "negative"

JOBS = Counter(
    "firstread_jobs_total",
    "Runs of a job by outcome: DONE, REJECTED, FAILED, and the attempts that ended in RETRY or LOST.",
    ["pipeline", "outcome"],
)
REJECTIONS = Counter("firstread_rejections_total", "Jobs without anything suitable, by reason.", ["pipeline", "reason"])
ERRORS = Counter("firstread_errors_total", "Attempts that failed, by kind of error.", ["pipeline", "reason"])
WARNINGS = Counter("firstread_warnings_total", "Warnings on committed results, by code.", ["pipeline", "reason"])
UNWANTED = Counter("firstread_unwanted_revisions_total", "Revisions that no pipeline wants, by reason.", ["reason"])
FLAGS = Counter("firstread_flags_total", "Runs that raised or confirmed a flag.", ["pipeline", "model"])
CALLS = Counter(
    "firstread_calls_total",
    "Runs that compared a score with the threshold at which it flags, by outcome: positive or negative. A hint has no "
    "such threshold.",
    ["pipeline", "model", "outcome"],
)
STAGE_SECONDS = Histogram(
    "firstread_stage_seconds", "Duration of a stage of a job.", ["pipeline", "stage"], buckets=STAGE_BUCKETS
)
WAIT_SECONDS = Histogram(
    "firstread_wait_seconds",
    "From the close of a revision to the claim of its job.",
    ["pipeline"],
    buckets=RESULT_BUCKETS,
)
RESULT_SECONDS = Histogram(
    "firstread_result_seconds", "From the last image to the committed result.", ["pipeline"], buckets=RESULT_BUCKETS
)
SCORE = Histogram(
    "firstread_score_ratio",
    "Study-level probability of the pipeline's leading finding.",
    ["pipeline", "model"],
    buckets=SCORE_BUCKETS,
)
MODEL_INFO = Gauge(
    "firstread_model_info",
    "1 for each package of the models folder; outcome is serving, shadow or refused (reason: why).",
    ["pipeline", "model", "outcome", "reason"],
    multiprocess_mode="livemax",
)
MODEL_ENGINE_INFO = Gauge(
    "firstread_model_engine_info",
    "1 for each package that is loaded; outcome is what runs it: tensorflow, openvino_int8, openvino_bf16, "
    "openvino_fp16 or openvino_fp32 (reason: why TensorFlow does in the place of the engine that is set).",
    ["pipeline", "model", "outcome", "reason"],
    multiprocess_mode="livemax",
)
INFERENCE_SECONDS = Histogram(
    "firstread_inference_seconds", "Duration of one batch on the device.", ["model"], buckets=STAGE_BUCKETS
)
BATCH_IMAGES = Histogram("firstread_batch_images", "Images in a batch.", ["model"], buckets=BATCH_BUCKETS)
IMAGES = Counter("firstread_images_total", "Images scored.", ["model"])
ENGINE_REQUESTS = Gauge("firstread_engine_requests", "Requests that wait for the device.", multiprocess_mode="livesum")
SCORING_JOBS = Gauge("firstread_scoring_jobs", "Jobs that workers have in hand.", multiprocess_mode="livesum")
DOORBELLS = Counter(
    "firstread_doorbells_total",
    "Messages on the broker by what came of them: work, nothing, error, or unreadable for what is no doorbell.",
    ["outcome"],
)
SWEEPS = Counter(
    "firstread_sweeps_total", "What the sweeper put right: republished, lease_lost, exhausted, error.", ["outcome"]
)
RESTARTS = Counter(
    "firstread_restarts_total",
    "Restarts of a worker process: worker_died, worker_stalled, consumer_silent ...",
    ["reason"],
)
DECODER_ENDS = Counter(
    "firstread_decoder_ends_total",
    "Decoder processes that ended: died, hung, memory, panic (the frame is unreadable), killed (from outside), grown, "
    "dropped.",
    ["reason"],
)


def begin(pipelines: Iterable[str], models: Iterable[tuple[str, str]]) -> None:
    """Show what alerts count from the start, at zero: without a first value there is no increase.

    Parameters
    ----------
    pipelines : iterable of str
        Every pipeline.
    models : iterable of (str, str)
        Pipeline and ``name/version`` of the packages that serve.
    """
    for pipeline in pipelines:
        for outcome in (JobState.DONE, JobState.REJECTED, JobState.FAILED):
            JOBS.labels(pipeline, outcome)
        RESULT_SECONDS.labels(pipeline)
    for pipeline, model in models:
        FLAGS.labels(pipeline, model)
        for call in (POSITIVE, NEGATIVE):
            CALLS.labels(pipeline, model, call)
        SCORE.labels(pipeline, model)
