"""A package's network as a file for OpenVINO: one zip of the network, its own golden outputs and slopes.

It is made by :mod:`training.optimize` and belongs to the package: the card names its checksum and the weights that it
was made from. It serves only where its golden outputs hold on the very machine, since int8 and bfloat16 differ between
processors.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worker.packages.card import Card, ChecksumError, PackageError
from worker.packages.converted import Converted, Precision, file_of
from worker.packages.limits import ARRAYS_BYTES, DAMAGED, require_card_limits, require_readable_members
from worker.packages.package import BROKEN, compare_golden, first_line, load, read_golden, sha256_of, verify_checksum
from worker.packages.runtimes.base import Runtime
from worker.packages.runtimes.openvino import BATCH_SIZES, OpenVinoPackage, has_bfloat16, import_openvino
from worker.packages.runtimes.startup import ensure_tensorflow

if TYPE_CHECKING:
    import openvino

GRAPH, CONSTANTS, ARRAYS = "network.xml", "network.bin", "own.npz"
MEMBERS = (GRAPH, CONSTANTS, ARRAYS)
OUTPUT, SLOPES = "golden", "slopes_"
"""In :data:`ARRAYS`: the output of the golden pixels, and the beginning of the names of slopes."""
MADE_AT = (1980, 1, 1, 0, 0, 0)
"""Time of every member: the same network makes the same file."""


class NotConvertedError(PackageError):
    """The package has no file of a precision that may serve."""


class NotInstalledError(PackageError):
    """OpenVINO is not installed."""


class ProcessorError(PackageError):
    """The processor does not compute as the file wants it to."""


@dataclass(frozen=True)
class OpenVinoFile:
    """What is in the file.

    Attributes
    ----------
    graph, constants : bytes
        The network in OpenVINO's intermediate representation.
    golden : ndarray
        Output of the package's golden pixels as this network gave it where it was made.
    slopes : mapping
        Of :class:`worker.packages.runtimes.openvino.OpenVinoPackage`.
    """

    graph: bytes
    constants: bytes
    golden: np.ndarray
    slopes: Mapping[str, np.ndarray]

    def write(self, path: Path) -> None:
        """Write the zip."""
        arrays = io.BytesIO()
        np.savez_compressed(arrays, **{OUTPUT: self.golden, **{SLOPES + n: v for n, v in self.slopes.items()}})  # type: ignore[arg-type]
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in zip(MEMBERS, (self.graph, self.constants, arrays.getvalue()), strict=True):
                info = zipfile.ZipInfo(name, MADE_AT)
                info.external_attr = 0o644 << 16
                archive.writestr(info, data, zipfile.ZIP_DEFLATED)

    def network(self) -> tuple[openvino.Model, openvino.Tensor]:
        """The network as OpenVINO holds it, and the memory of its constants, which must live as long as it is run."""
        ov = import_openvino()
        constants = ov.Tensor(np.frombuffer(self.constants, dtype=np.uint8))
        return ov.Core().read_model(model=self.graph, weights=constants), constants


def read_openvino_file(path: Path) -> OpenVinoFile:
    """The file's content; :class:`PackageError` where it is no such file, or unpacks to more than would serve."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            require_readable_members(infos, path.name)
            if sorted(info.filename for info in infos) != sorted(MEMBERS):
                raise PackageError(f"{path.name} holds other members than {', '.join(MEMBERS)}")
            if sum(info.file_size for info in infos) > ARRAYS_BYTES:
                raise PackageError(f"{path.name} unpacks to more than {ARRAYS_BYTES >> 20} MiB")
            graph, constants, arrays = (archive.read(name) for name in MEMBERS)
        with np.load(io.BytesIO(arrays)) as stored:
            slopes = {n.removeprefix(SLOPES): stored[n] for n in stored.files if n.startswith(SLOPES)}
            return OpenVinoFile(graph, constants, stored[OUTPUT], slopes)
    except (OSError, *DAMAGED, KeyError, ValueError) as error:
        raise PackageError(f"cannot read {path.name}: {first_line(error)}") from error


PassedOver = Callable[[Precision, PackageError], object]


def load_first(
    directory: Path, card: Card, precisions: Sequence[Precision], on_passed_over: PassedOver, threads: int = 0
) -> tuple[Precision, OpenVinoPackage]:
    """The first converted file, in the order of the precisions, that :func:`load_openvino` takes on this machine.

    Parameters
    ----------
    on_passed_over : callable
        Called with the precision of each file that is not taken, and why.

    Raises
    ------
    NotConvertedError
        If the package has none of them.
    NotInstalledError
        If OpenVINO is not installed.
    PackageError
        If none is taken: what the first one raised, unless it is only the processor that is another.
    """
    failures: list[PackageError] = []
    for precision in dict.fromkeys(precisions):
        if precision not in card.converted:
            continue
        try:
            return precision, load_openvino(directory, card, precision, threads)
        except NotInstalledError:
            raise
        except PackageError as error:
            on_passed_over(precision, error)
            failures.append(error)
    if not failures:
        raise NotConvertedError(f"{card.name}/{card.version} has no converted file ({', '.join(precisions)})")
    raise next((error for error in failures if not isinstance(error, ProcessorError)), failures[0])


def load_openvino(directory: Path, card: Card, precision: Precision, threads: int = 0) -> OpenVinoPackage:
    """Load a package's converted file: checksums, network, and its own golden self-test, in every size of a batch.

    Raises
    ------
    NotInstalledError
        If OpenVINO is not installed.
    ProcessorError
        If the file is for bfloat16 and the processor does not compute in it.
    ChecksumError
        If the file, or what it was made from, is not what the card names.
    SelfTestError
        If the golden pixels do not give this network's golden outputs on this machine.
    PackageError
        If anything else is missing, does not fit or cannot be run.
    """
    try:
        import_openvino()
    except ImportError as error:
        raise NotInstalledError(f"OpenVINO cannot be loaded: {first_line(error)}") from error
    with _as_package_errors(card):
        verify_checksum(directory, card)
        verify_converted(directory, card, precision)
        require_card_limits(card)
        content = read_openvino_file(directory / file_of(precision))
        package = runtime_of(directory, card, content, precision, threads)
        compare_golden(package, read_golden(directory, card)[0], content.golden, rows=sum(BATCH_SIZES))
        return package


@contextmanager
def _as_package_errors(card: Card) -> Iterator[None]:
    """Everything of :data:`worker.packages.package.BROKEN` as :class:`PackageError`."""
    try:
        yield
    except BROKEN as error:
        raise PackageError(f"{card.name}/{card.version}: {type(error).__name__}: {first_line(error)}") from error


def runtime_of(
    directory: Path, card: Card, content: OpenVinoFile, precision: Precision, threads: int = 0
) -> OpenVinoPackage:
    """The file's network, ready to score; :class:`PackageError` where OpenVINO cannot read, compile or run it."""

    def reference() -> Runtime:
        ensure_tensorflow(threads)
        return load(directory)

    with _as_package_errors(card):
        bfloat16 = precision == "bf16"
        if bfloat16 and not has_bfloat16():
            name = file_of(precision)
            raise ProcessorError(f"{name} is for processors that compute in bfloat16, and this one does not")
        network, constants = content.network()
        return OpenVinoPackage(card, network, constants, content.slopes, reference, threads, bfloat16)


def verify_all(directory: Path, card: Card) -> None:
    """:func:`worker.packages.package.verify_checksum`, and :func:`verify_converted` of every converted file."""
    verify_checksum(directory, card)
    for precision in card.converted:
        verify_converted(directory, card, precision)


def verify_converted(directory: Path, card: Card, precision: Precision) -> Converted:
    """What the card says of a converted file, if that is the file that is there and made from the card's weights.

    Raises
    ------
    ChecksumError, PackageError
    """
    row, path = card.converted[precision], directory / file_of(precision)
    if not path.is_file():
        raise PackageError(f"{card.name}/{card.version}: {path.name} is missing")
    if row.weights_sha256 != card.sha256:
        raise ChecksumError(f"{card.name}/{card.version}: {path.name} was made from other weights")
    if sha256_of(path) != row.sha256:
        raise ChecksumError(f"{card.name}/{card.version}: {path.name} is not the file that the card names")
    return row
