"""Loading the packages at start: checksum, network, self-test, warm-up. Runs in the engine's thread.

Where ``FIRSTREAD_ENGINE`` is ``openvino`` a converted file of the package serves, and TensorFlow is not loaded for it.
A package of which no file passes its own tests is served by TensorFlow, the reference.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

from firstread.settings import Settings
from worker.engine.requests import ServedModel
from worker.engine.serving import REFERENCE, Refused, Serving
from worker.packages.card import Card, ChecksumError, PackageError, SelfTestError
from worker.packages.converted import FILES, Precision
from worker.packages.manifest import MANIFEST, SIGNATURE
from worker.packages.openvino_file import NotConvertedError, NotInstalledError, ProcessorError, load_first
from worker.packages.package import BROKEN, CARD, WEIGHTS, load
from worker.packages.runtimes.startup import ensure_tensorflow
from worker.packages.signature import SignatureError, require_signature
from worker.packages.store import STATE_FILE, PackageEntry, open_store, package_folders
from worker.pipelines.base import Served

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (SignatureError, "signature"),
    (ChecksumError, "checksum"),
    (SelfTestError, "self_test"),
    (NotConvertedError, "not_converted"),
    (NotInstalledError, "not_installed"),
    (ProcessorError, "processor"),
    (PackageError, "package_error"),
)
"""Why a package, or its converted file, is refused; anything else that loading raises is ``load_failed``."""
LOADING = (PackageError, *BROKEN)
"""What a package that does not serve makes of its loading."""

log = logging.getLogger(__name__)


def load_serving(settings: Settings) -> Serving:
    """Every active and shadow package of the installed ones that passes its tests, warm.

    A package that does not pass is noted with its reason and does not serve; the others do.
    """
    serving = Serving()
    for entry in open_store(settings).entries():
        if entry.role != "off" or entry.error:
            _load_one(entry, settings, serving)
    return serving


def _load_one(entry: PackageEntry, settings: Settings, serving: Serving) -> None:
    card = entry.card
    if card is None:
        serving.refuse(Refused(entry.key, "", "", "card"))
        return
    started = time.perf_counter()
    try:
        require_signature(entry.directory, settings.model_keys)
        engine, package, reason = engine_of(entry.directory, card, settings)
    except LOADING as error:
        text = f": {error}" if isinstance(error, SignatureError) else ""
        log.error("package not loaded%s", text, exc_info=error, extra={"model": entry.key, "reason": reason_of(error)})
        # A shadow that does not load leaves nobody without a score.
        task = card.task if entry.role == "active" else ""
        serving.refuse(Refused(entry.key, card.pipeline, task, reason_of(error)))
        return
    serving.add(Served(card, entry.role), package, engine, reason)
    seconds = round(time.perf_counter() - started, 2)
    log.info("package loaded and warm", extra={"model": entry.key, "engine": engine, "seconds": seconds})


def engine_of(directory: Path, card: Card, settings: Settings) -> tuple[str, ServedModel, str]:
    """A package as it serves on this machine, tested and warm.

    Returns
    -------
    engine : str
        ``tensorflow``, or ``openvino_`` and the precision.
    package : ServedModel
    reason : str
        Why the reference serves in the place of the engine that is set; else empty.

    Raises
    ------
    PackageError
        If the reference does not pass either. Broken files make other errors, see :data:`LOADING`.
    """
    reason = ""
    if settings.engine == "openvino":
        try:
            precision, converted = load_first(
                directory,
                card,
                settings.engine_precisions,
                partial(_note_passed_over, card),
                settings.inference_threads,
            )
            return f"openvino_{precision}", converted, ""
        except PackageError as error:
            reason = reason_of(error)
            log.warning(
                "TensorFlow serves in the place of OpenVINO: %s",
                error,
                extra={"model": f"{card.name}/{card.version}", "reason": reason},
            )
    ensure_tensorflow(settings.inference_threads)
    package = load(directory)
    package.warm_up()
    return REFERENCE, package, reason


def _note_passed_over(card: Card, precision: Precision, error: PackageError) -> None:
    level = logging.INFO if isinstance(error, ProcessorError) else logging.WARNING
    extra = {"model": f"{card.name}/{card.version}", "reason": reason_of(error)}
    log.log(level, "%s does not serve: %s", precision, error, extra=extra)


def reason_of(error: BaseException) -> str:
    """Why a package does not serve, by what its loading raised."""
    return next((code for kind, code in REASONS if isinstance(error, kind)), "load_failed")


def fingerprint(settings: Settings) -> tuple[tuple[str, int, int], ...]:
    """What the packages and the operator's choice look like: name, size and time of each file that matters."""
    files = [settings.home / STATE_FILE, *([settings.model_keys] if settings.model_keys else [])]
    for name in (CARD, WEIGHTS, MANIFEST, SIGNATURE, *FILES):
        files += [path for folder in package_folders(settings) for path in sorted(folder.glob(f"*/*/{name}"))]
    return tuple(stamp for path in files if (stamp := _stamp_of(path)) is not None)


def _stamp_of(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return str(path), stat.st_size, stat.st_mtime_ns
