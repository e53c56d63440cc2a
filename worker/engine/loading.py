"""Loading the packages at start: checksum, network, self-test, warm-up. Runs in the engine's thread."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from firstread.settings import Settings
from worker.engine.serving import Refused, Serving
from worker.packages.card import ChecksumError, PackageError, SelfTestError
from worker.packages.manifest import MANIFEST, SIGNATURE
from worker.packages.package import CARD, WEIGHTS, load
from worker.packages.runtimes.startup import start_tensorflow
from worker.packages.signature import SignatureError, require_signature
from worker.packages.store import STATE_FILE, PackageEntry, open_store, package_folders
from worker.pipelines.base import Served

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (SignatureError, "signature"),
    (ChecksumError, "checksum"),
    (SelfTestError, "self_test"),
    (PackageError, "package_error"),
)
"""Why a package is refused; anything else that loading raises is ``load_failed``."""

LOADING = (
    PackageError,
    *(RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, OSError, MemoryError),
)
"""What a package that does not serve makes of its loading."""

log = logging.getLogger(__name__)


def load_serving(settings: Settings) -> Serving:
    """Every active and shadow package of the installed ones that passes its tests, warm.

    A package that does not pass is noted with its reason and does not serve; the others do.
    """
    serving = Serving()
    entries = open_store(settings).entries()
    wanted = [entry for entry in entries if entry.role != "off" or entry.error]
    if wanted:
        start_tensorflow(settings.inference_threads)
    for entry in wanted:
        _load_one(entry, serving, settings.model_keys)
    return serving


def _load_one(entry: PackageEntry, serving: Serving, keys_file: Path | None) -> None:
    card = entry.card
    if card is None:
        serving.refuse(Refused(entry.key, "", "", "card"))
        return
    started = time.perf_counter()
    try:
        require_signature(entry.directory, keys_file)
        package = load(entry.directory)
        package.warm_up()
    except LOADING as error:
        reason = next((code for kind, code in REASONS if isinstance(error, kind)), "load_failed")
        text = f": {error}" if isinstance(error, SignatureError) else ""
        log.error("package not loaded%s", text, exc_info=error, extra={"model": entry.key, "reason": reason})
        # A shadow that does not load leaves nobody without a score.
        serving.refuse(Refused(entry.key, card.pipeline, card.task if entry.role == "active" else "", reason))
        return
    serving.add(Served(card, entry.role), package)
    log.info("package loaded and warm", extra={"model": entry.key, "seconds": round(time.perf_counter() - started, 2)})


def fingerprint(settings: Settings) -> tuple[tuple[str, int, int], ...]:
    """What the packages and the operator's choice look like: name, size and time of each file that matters."""
    files = [settings.home / STATE_FILE, *([settings.model_keys] if settings.model_keys else [])]
    for name in (CARD, WEIGHTS, MANIFEST, SIGNATURE):
        files += [path for folder in package_folders(settings) for path in sorted(folder.glob(f"*/*/{name}"))]
    return tuple(stamp for path in files if (stamp := _stamp_of(path)) is not None)


def _stamp_of(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return str(path), stat.st_size, stat.st_mtime_ns
