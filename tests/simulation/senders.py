"""Who gives studies in: modalities that send until everything is acknowledged, and people who drop files."""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_listener.intake.arrivals import Ending, IncomingDelivery
from dicom_listener.scp.messages import Request
from firstread import effects
from firstread.clock import utcnow
from firstread.dicom.uids import stable_uid
from firstread.phantoms.ct import file_meta
from tests.simulation.site import Listener, Site

SUCCESS = 0x0000


@dataclass(frozen=True)
class Image:
    """One object as it is sent. ``p`` is the probability that it will get."""

    study: str
    sop: str
    p: float
    body: bytes
    file: bytes
    is_image: bool = True

    @property
    def sha256(self) -> str:
        """Of the encoded data set."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass
class Given:
    """What a history gave in, and what was said to it."""

    acknowledged: list[Image] = field(default_factory=list)
    """A success status came, or the file left the inbox."""
    sent: list[Image] = field(default_factory=list)
    """At least once, whatever the answer."""
    refused: list[tuple[Image, int]] = field(default_factory=list)
    dropped: list[Image] = field(default_factory=list)
    at_work: int = 0


@lru_cache(maxsize=4096)
def image(study: str, number: int, level: int, content: int = 0) -> Image:
    """A small CT image of which every pixel is ``level``; ``content`` makes other bytes under the same UID."""
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = stable_uid(study, "image", number)
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = stable_uid(study, "series")
    ds.Modality = "CT"
    ds.PatientName, ds.PatientID = "Simulated^One", f"P{study[-6:]}"
    ds.StudyDate, ds.StudyTime = "20260302", "075500"
    ds.InstanceNumber = number
    ds.SeriesDescription = f"content {content}"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 4
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.PixelData = int(level).to_bytes(2, "little") * 16
    ds.file_meta = file_meta(ds.SOPClassUID, ds.SOPInstanceUID)
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    file = buffer.getvalue()
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, implicit_vr=False, little_endian=True, enforce_file_format=False)
    body = buffer.getvalue()
    at = body.find(b"\x08\x00\x16\x00")
    return Image(study, str(ds.SOPInstanceUID), level / 1000.0, body[at:], file)


@lru_cache(maxsize=64)
def rubbish(number: int) -> Image:
    """Bytes that are no data set."""
    data = b"this is no image, number %d. " % number * 8
    return Image("", f"2.25.{number + 1}", 0.0, data, data, is_image=False)


class Senders:
    """The outside of one history."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self.site, self.world, self.rng = site, site.world, rng
        self.given = Given()

    def start(self) -> None:
        """Everything that this history gives in, each in a thread of its own."""
        rng = self.rng
        for number in range(rng.choice((1, 1, 2))):
            study = stable_uid("simulation", rng.getrandbits(32), number)
            images = [image(study, n + 1, self._level()) for n in range(rng.choice((1, 2, 3)))]
            if rng.random() < 0.2:
                self._spawn(lambda images=images: self._drop(images), f"person{number}")
                continue
            self._spawn(lambda images=images: self._modality(images), f"modality{number}")
        if rng.random() < 0.1:
            self._spawn(lambda: self._send([rubbish(rng.randint(0, 9))], f"ODD{rng.randint(0, 1)}"), "odd")
        if rng.random() < 0.08:
            self._spawn(lambda: self._drop([rubbish(rng.randint(10, 19))]), "litter")

    def _level(self) -> int:
        return self.rng.choice((100, 300, 950))

    def _spawn(self, run: Any, name: str) -> None:
        self.given.at_work += 1

        def main() -> None:
            self.world.sleep(self.rng.uniform(0.0, 3.0))
            run()
            self.given.at_work -= 1

        self.world.spawn(self.site.outside, main, name)

    def _modality(self, images: list[Image]) -> None:
        rng, ae = self.rng, f"CT{self.rng.randint(1, 2)}"
        parts = [[one] for one in images] if rng.random() < 0.2 else [images]
        late: list[Image] = []
        if len(images) > 1 and rng.random() < 0.35:
            late = [images[-1]]
            parts = [images[:-1]]
        for part in parts:
            self._send(part, ae)
        if rng.random() < 0.2:
            self._send(rng.sample(images, 1), ae)  # the same again
        if rng.random() < 0.1:
            first = images[0]
            self._send([image(first.study, 1, self._level(), content=1)], ae)  # other bytes under the same UID
        if late:
            self.world.sleep(rng.choice((0.5, 3.0, 8.0, 30.0)))
            self._send(late, ae)

    def _send(self, images: list[Image], ae: str) -> None:
        """Send in one association; what is not acknowledged goes again, in another one."""
        left = list(images)
        for _ in range(60):
            listener = self._any_listener()
            if listener is not None:
                left = self._associate(listener, left, ae)
            if not left:
                return
            self.world.sleep(self.rng.uniform(0.5, 6.0))
        raise AssertionError("a modality gave up: nothing was acknowledged for minutes")

    def _any_listener(self) -> Listener | None:
        listeners = sorted(self.site.listeners.values(), key=lambda one: one.proc.name)
        return self.rng.choice(listeners) if listeners else None

    def _associate(self, listener: Listener, images: list[Image], ae: str) -> list[Image]:
        """Returns what is still to be sent."""
        primitive = SimpleNamespace(called_ae_title="FIRSTREAD")
        assoc = SimpleNamespace(requestor=SimpleNamespace(ae_title=ae, address="10.0.0.1", primitive=primitive))
        left = list(images)
        breaks_off = self.rng.random() < 0.06
        try:
            for one in images:
                self.given.sent.append(one)
                answers: list[int] = []
                try:
                    self.site.call(listener.proc, partial(_store, listener, assoc, one, answers), "store")
                finally:
                    for status in answers:
                        if status == SUCCESS:
                            self.given.acknowledged.append(one)
                            left.remove(one)
                        elif status >> 12 == 0xC or status >> 8 == 0xA9:
                            self.given.refused.append((one, status))
                            left.remove(one)
                if breaks_off:
                    break
            ending = "aborted" if left else "released"
            self.site.call(listener.proc, lambda: _end(listener, assoc, ending), "end")
        except (ConnectionError, OSError):
            if listener.proc.alive:
                self._hang_up(listener, assoc)
        return left

    def _hang_up(self, listener: Listener, assoc: Any) -> None:
        try:
            self.site.call(listener.proc, lambda: _end(listener, assoc, "aborted"), "end")
        except (ConnectionError, OSError):
            return

    def _drop(self, images: list[Image]) -> None:
        """Files into the inbox, as a person copies them."""
        folder = self.site.settings.inbox_dir
        for one in images:
            name = f"{self.rng.getrandbits(40):x}.{'dcm' if one.is_image else 'bin'}"
            (folder / name).write_bytes(one.file)
            self.world.note(f"dropped {name}")
            self.given.dropped.append(one)
            self.world.changes["inbox"] += 1
            if self.rng.random() < 0.7:
                for listener in self.site.listeners.values():
                    listener.inbox._wake.set()
            self.world.sleep(self.rng.choice((0.0, 0.2, 2.0)))


def _store(listener: Listener, assoc: Any, one: Image, answers: list[int]) -> None:
    """What an association does with a C-STORE, from its command to its answer."""
    request = Request(
        message_id=1,
        context_id=1,
        command_field=0x0001,
        has_data_set=True,
        sop_class_uid=str(CTImageStorage),
        sop_instance_uid=one.sop,
        priority=0,
    )
    reception = listener.handlers.begin(assoc, request, str(ExplicitVRLittleEndian))
    try:
        half = len(one.body) // 2
        for part in (one.body[:half], one.body[half:]):
            reception.write(memoryview(part))
        status, _ = reception.finish()
    finally:
        reception.discard()
    with effects.SCP_ANSWER:
        answers.append(status)


def _end(listener: Listener, assoc: Any, ending: str) -> None:
    """As :meth:`dicom_listener.scp.server.Scp._on_end`."""
    delivery: IncomingDelivery | None = getattr(assoc, "delivery", None)
    if delivery is not None:
        listener.rows.put(Ending(delivery, ending, utcnow()), timeout_s=60.0)
