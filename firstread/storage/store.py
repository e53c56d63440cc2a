"""A store that machines share: S3-compatible, or whatever fsspec knows, behind the spool and the evidence.

Without a store URL the home is a folder, shared by NFS or not. With one, an image is on the local disk only while it
comes in: it is in the store before the success status goes out. Readers take copies into a cache for an hour.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from firstread import effects
from firstread.clock import monotonic, utcnow
from firstread.errors import FirstreadError
from firstread.settings import Settings
from firstread.storage import disk
from firstread.storage.spool import KEY_PATTERN, DiskFull, Spool, SpoolFile

log = logging.getLogger(__name__)

CACHE_KEEP_S = 3600.0
CACHE_LOOK_S = 600.0
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
FETCHES_AT_ONCE = 8
EVIDENCE_PREFIX = "evidence/"
"""Of the keys of evidence; the rest is the path below the folder ``evidence``."""


class StoreAway(DiskFull):
    """The store does not take or give a file. A kind of full disk: the status lets senders try again later."""


class StoreUnusable(FirstreadError):
    """The URL of the store is not usable."""


class SharedStore:
    """Files by key below one URL.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``; credentials and endpoint come from the environment (``AWS_ACCESS_KEY_ID``,
        ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``).
    """

    def __init__(self, url: str) -> None:
        import fsspec

        options: dict[str, Any] = {}
        if url.startswith("s3://"):
            options["config_kwargs"] = {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                "retries": {"max_attempts": 3, "mode": "standard"},
            }
            options["use_listings_cache"] = False
            if os.environ.get("AWS_ENDPOINT_URL"):
                options["client_kwargs"] = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError, OSError) as error:
            raise StoreUnusable(f"FIRSTREAD_STORE_URL: no such store ({type(error).__name__})") from error
        self._root = str(root).rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def put(self, local: Path, key: str) -> None:
        """Copy a file into the store. Raises FileNotFoundError where there is none to copy, or :class:`StoreAway`."""
        with _translated("store"):
            parent = self._path(key).rpartition("/")[0]
            if "file" in self._protocols():
                self._fs.makedirs(parent, exist_ok=True)
            with effects.STORE_PUT:
                self._fs.put_file(str(local), self._path(key))

    def holds(self, key: str) -> bool:
        """Whether there is a file. Raises :class:`StoreAway`."""
        with _translated("list"):
            return bool(self._fs.isfile(self._path(key)))

    def fetch(self, key: str, local: Path) -> None:
        """Copy a file out of the store, whole or not at all. Raises FileNotFoundError, or :class:`StoreAway`."""
        local.parent.mkdir(parents=True, exist_ok=True)
        partial = local.with_name(f"{local.name}.{uuid.uuid4().hex}.part")
        try:
            with _translated("fetch"):
                self._fs.get_file(self._path(key), str(partial))
            partial.rename(local)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """Remove a file; one that is gone already is no error. Raises :class:`StoreAway`."""
        with contextlib.suppress(FileNotFoundError), _translated("delete"), effects.STORE_DELETE:
            self._fs.rm_file(self._path(key))

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key below a prefix, in order. Raises :class:`StoreAway`."""
        with _translated("list"):
            try:
                paths = self._fs.find(self._path(prefix), withdirs=False)
            except FileNotFoundError:
                paths = []
        yield from (path[len(self._root) + 1 :] for path in sorted(paths))

    def _protocols(self) -> tuple[str, ...]:
        protocol = self._fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Every failure of a back end, whatever its class, as :class:`StoreAway`; a missing file stays one."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StoreAway(f"the store does not {what} ({type(error).__name__})") from error


class Cache:
    """Local copies of files of the store, dropped an hour after they came."""

    def __init__(self, store: SharedStore, root: Path) -> None:
        self._store = store
        self._root = root
        self._lock = threading.Lock()
        self._looked = 0.0

    def get(self, key: str) -> Path:
        """Path of a local copy. Raises FileNotFoundError or :class:`StoreAway`."""
        self._forget()
        local = self._root / key
        if local.is_file():
            os.utime(local)
        else:
            self._store.fetch(key, local)
        return local

    def drop(self, key: str) -> None:
        """Drop one copy."""
        (self._root / key).unlink(missing_ok=True)

    def _forget(self) -> None:
        with self._lock:
            if monotonic() - self._looked < CACHE_LOOK_S and self._looked:
                return
            self._looked = monotonic()
        limit = utcnow().timestamp() - CACHE_KEEP_S
        for path in self._root.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_mtime < limit:
                    path.unlink()


class SharedSpool(Spool):
    """A spool whose finished files lie in a store; the local folder holds what is coming in."""

    PREFIX = "spool/"

    def __init__(self, root: Path, store: SharedStore, cache: Cache, min_free_mb: int = 0) -> None:
        super().__init__(root, min_free_mb)
        self._store = store
        self._cache = cache

    @contextlib.contextmanager
    def create(self, key: str | None = None) -> Iterator[tuple[str, BinaryIO]]:
        """As :meth:`Spool.create`, and in the store when the block has ended; nothing stays where that fails.

        Raises
        ------
        DiskFull
            When the disk refuses the bytes, or, as :class:`StoreAway`, the store does.
        """
        with super().create(key) as (new_key, file):
            yield new_key, file
        local = super().path(new_key)
        try:
            self._store.put(local, self.PREFIX + new_key)
        except FileNotFoundError:
            # another process of this home, which has just started, took it for what a killed writer left
            if not self._store.holds(self.PREFIX + new_key):
                raise
        finally:
            _drop_here(local)

    def path(self, key: str) -> Path:
        """A local path with the content of a key: a copy in the cache, unless the file is still here.

        A key that the store does not have gives the path where it would lie, as without a store: opening it fails.
        """
        local = super().path(key)
        if local.exists():
            return local
        try:
            return self._cache.get(self.PREFIX + key)
        except FileNotFoundError:
            return local

    def open(self, key: str) -> BinaryIO:
        """Open a stored object for reading. Raises FileNotFoundError or :class:`StoreAway`."""
        return self.path(key).open("rb")

    def stat(self, key: str) -> SpoolFile:
        """Size and local path of a stored object. Raises FileNotFoundError or :class:`StoreAway`."""
        path = self.path(key)
        return SpoolFile(key, path, path.stat().st_size)

    def prefetch(self, keys: Iterable[str]) -> None:
        """Copy several files at once, so that a study does not wait for one after the other."""
        with ThreadPoolExecutor(max_workers=FETCHES_AT_ONCE) as pool:
            list(pool.map(self.path, keys))

    def delete(self, key: str) -> None:
        """Remove a stored object, its copy in the cache too. Raises :class:`StoreAway`."""
        super().delete(key)
        self._cache.drop(self.PREFIX + key)
        self._store.delete(self.PREFIX + key)

    def keys(self) -> Iterator[str]:
        """Every finished file of the store; what a killed writer left here is put there first."""
        left_here = super().keys()
        for key in left_here:
            local = super().path(key)
            with contextlib.suppress(FileNotFoundError):  # its writer lives, and was quicker
                self._store.put(local, self.PREFIX + key)
            _drop_here(local)
        for key in self._store.keys(self.PREFIX):
            bare = key.removeprefix(self.PREFIX)
            if KEY_PATTERN.fullmatch(bare):
                yield bare


def _drop_here(local: Path) -> None:
    """Remove a local file that the store decides about: one that stays here refuses nothing that is in the store."""
    try:
        disk.unlink(effects.SPOOL_DELETE, local, missing_ok=True)
    except OSError as error:
        log.warning("a file that came in stays here until the next start (%s)", error.strerror or error)


_stores: dict[tuple[int, str], SharedStore] = {}
_stores_lock = threading.Lock()


def store_of(settings: Settings) -> SharedStore | None:
    """The site's store, one a process; None where files lie in a folder."""
    if not settings.store_url:
        return None
    with _stores_lock:
        key = (os.getpid(), settings.store_url)
        if key not in _stores:
            _stores[key] = SharedStore(settings.store_url)
        return _stores[key]


def spool_of(settings: Settings, min_free_mb: int = 0) -> Spool:
    """The site's spool: a folder, or a store behind it."""
    store = store_of(settings)
    if store is None:
        return Spool(settings.spool_dir, min_free_mb)
    return SharedSpool(settings.spool_dir, store, cache_of(settings, store), min_free_mb)


def cache_of(settings: Settings, store: SharedStore) -> Cache:
    """The cache of this home."""
    return Cache(store, settings.home / "cache")


def retention_watermark_bytes(settings: Settings, total_bytes: int) -> int:
    """Free space under which images of finished studies go; 0 where they never do.

    More than half of a disk is not asked for, and on any disk more than what images are refused under (twice that,
    where the disk is large enough), so that room is made before anything is refused. Where images lie in a store their
    removal makes no room on the disk.
    """
    if not settings.retention_free_mb or settings.store_url:
        return 0
    refused = settings.min_free_mb * 2**20
    least = min(2 * refused, max(refused, (refused + total_bytes) // 2))
    return max(least, min(settings.retention_free_mb * 2**20, total_bytes // 2))


def retention_lines(settings: Settings) -> list[str]:
    """What becomes of images when the disk fills."""
    watermark = retention_watermark_bytes(settings, shutil.disk_usage(settings.home).total) // 2**20
    if settings.store_url:
        return ["Images lie in a store; they go by FIRSTREAD_RETENTION_DAYS alone."]
    if not watermark:
        return [f"Images stay until the disk is full; under {settings.min_free_mb} MiB free new ones are refused."]
    return [
        f"Firstread is no archive: under {watermark} MiB free, images of finished studies go, the oldest first",
        "(results, evidence and open flags stay; FIRSTREAD_RETENTION_FREE_MB=0 keeps the images).",
    ]
