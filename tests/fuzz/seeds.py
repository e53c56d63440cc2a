"""The inputs to begin from, made by the builders of the tests: ``python -m tests.fuzz.seeds`` writes them anew.

Inputs that a fuzzer found lie beside them, under the name ``found-...``, and stay.
"""

from __future__ import annotations

import io
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from PIL import Image
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.builders.bad_inputs import BAD_INPUTS, UNREADABLE, encoded, many_items, tiny_slice, with_elements
from tests.builders.peers import fragment, pdu, request, store_command
from tests.builders.streams import endless_rle, of_size, second_header
from tests.fuzz.code_streams import sound
from tests.fuzz.door import CORPUS
from tests.fuzz.upper_layer import data_set_bytes

Seeds = dict[str, bytes]
LONGEST: Final = 40_000
"""A longer one would make the corpus large; what it shows is shown by other tests."""


def upper_layer() -> Seeds:
    """Conversations, good and bad; ``waits`` is for peers that wait for the answer to their first PDU."""
    store = fragment(3, store_command()) + fragment(2, data_set_bytes())
    echo = (
        struct.pack("<HHI", 0, 0x0100, 2) + b"\x30\0" + struct.pack("<HHIHHHIH", 0, 0x0110, 2, 1, 0, 0x0800, 2, 0x0101)
    )
    release = pdu(5, bytes(4))
    waits = {
        "store": request() + store + release,
        "store_twice": request() + store + store + release,
        "echo": request(abstract=b"1.2.840.10008.1.1") + fragment(3, echo) + release,
        "no_data_set": request() + fragment(3, store_command(data_set_type=0x0101)) + release,
        "no_type": request() + pdu(9, bytes(4)),
        "request_twice": request() + request(),
        "announces_much": request() + struct.pack(">BBI", 4, 0, 64 * 2**20),
        "long_release": request() + struct.pack(">BBI", 5, 0, 2**20),
        "item_beyond": request() + pdu(4, struct.pack(">IBB", 100, 1, 3) + b"abcd"),
        "no_item": request() + pdu(4, b"\0\0"),
        "empty_item": request() + pdu(4, struct.pack(">IBB", 0, 1, 3)),
        "no_command": request() + fragment(3, b"not a command"),
        "other_context": request() + fragment(3, store_command(), context_id=3),
        "data_first": request() + fragment(2, b"data"),
        "command_within": request()
        + fragment(3, store_command())
        + fragment(0, b"data")
        + fragment(3, store_command()),
        "endless_command": request() + fragment(1, bytes(5000)) * 14,
        "abort": request() + fragment(3, store_command()) + pdu(7, bytes(4)),
    }
    at_once = {
        "even_context": request(context_id=2),
        "identity_0": request(identity=b"\0\0\0\1a\0\0"),
        "identity_99": request(identity=b"\x63\0\0\1a\0\0"),
        "no_uid": request(abstract=b"junk\xff" * 20),
        "item_beyond_request": request(more=b"\x20\0\xff\xff"),
        "item_of_no_type": request(more=b"\x99\0\0\0"),
        "short": pdu(1, b"abcd"),
        "six_bytes": struct.pack(">BBI", 1, 0, 64 * 2**20),
        "many_items": request(more=b"\x10\0\0\0" * 7000),
        "data_before_request": fragment(3, store_command()),
        "version_2": request(version=2),
        "proxy": b"PROXY TCP4 192.0.2.7 127.0.0.1 5000 104\r\n" + request(),
        "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        "web": b"GET / HTTP/1.1\r\n\r\n",
        "nothing": b"",
    }
    stays = {
        "three_bytes": b"\1\0\0",
        "half_a_request": request()[:40],
        "half_a_fragment": request() + struct.pack(">BBI", 4, 0, 1000) + bytes(10),
        "half_a_data_set": request() + fragment(3, store_command()) + fragment(0, bytes(100)),
    }
    return (
        {name: b"\1" + data for name, data in waits.items()}
        | {name: b"\0" + data for name, data in at_once.items()}
        | {f"{name}_reset": b"\2" + data for name, data in list(at_once.items())[:3]}
        | {name: b"\4" + data for name, data in stays.items()}
    )


def data_set() -> Seeds:
    """A slice in every encoding, and the zoo of bad inputs as far as its files are small."""
    seeds = {"slice": encoded(tiny_slice())}
    for name, syntax in {
        "implicit": ImplicitVRLittleEndian,
        "big_endian": ExplicitVRBigEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
    }.items():
        ds = tiny_slice()
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        buffer = io.BytesIO()
        ds.save_as(buffer, implicit_vr=name == "implicit", little_endian=name != "big_endian", enforce_file_format=True)
        seeds[name] = buffer.getvalue()
    for name, syntax in {"rle": RLELossless, "jpeg_ls": JPEGLSLossless, "jpeg_2000": JPEG2000Lossless}.items():
        ds = tiny_slice()
        ds.compress(syntax, generate_instance_uid=False)
        seeds[name] = encoded(ds)
    for name, change in UNREADABLE.items():
        ds = tiny_slice()
        change(ds)
        seeds[name] = encoded(ds)
    with tempfile.TemporaryDirectory() as folder:
        for bad in BAD_INPUTS:
            path = Path(folder) / bad.name
            bad.write(path)
            if path.stat().st_size <= LONGEST:
                seeds[path.stem] = path.read_bytes()
    item = struct.pack("<HH2sHIHHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    seeds["many_items"] = many_items(2000)
    seeds["deep"] = with_elements(item * 120)
    return seeds


def code_streams(codec: str) -> Callable[[], Seeds]:
    """Streams of a codec, sound, cut and lying."""

    def made() -> Seeds:
        whole = sound(codec)
        seeds = {"sound": whole, "other": sound(codec, 7), "cut": whole[: len(whole) * 4 // 5], "head": whole[:60]}
        if codec == "jpeg":
            seeds |= {"colours": sound(codec, 3, True), "lie": of_size(whole), "second": second_header(whole)}
            seeds["closed_again"] = whole[:-40] + b"\xff\xd9"
        if codec == "rle":
            seeds["endless"] = endless_rle()
        return seeds

    return made


def zips() -> Seeds:
    """Archives, good ones and such as are refused."""
    image = encoded(tiny_slice())

    def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as zipped:
            for name, content in members:
                zipped.writestr(name, content)
        return buffer.getvalue()

    good = archive(("a/1.dcm", image), ("a/2.txt", b"a note"))
    encrypted = bytearray(good)
    for start in (b"PK\3\4", b"PK\1\2"):
        encrypted[good.index(start) + (6 if start == b"PK\3\4" else 8)] |= 1
    return {
        "good": good,
        "stored": archive(("1.dcm", image), method=zipfile.ZIP_STORED),
        "bzip2": archive(("1.dcm", image), method=zipfile.ZIP_BZIP2),
        "lzma": archive(("1.dcm", image), method=zipfile.ZIP_LZMA),
        "names": archive(("../../up.dcm", image), ("/root.dcm", image), ("c:\\x\\y.dcm", image), ("\1.dcm", b"")),
        "nested": archive(("inner.zip", good)),
        "empty": archive(),
        "bomb": archive(("zeros", bytes(20 * 2**20))),
        "many": archive(*((f"{n}", b"") for n in range(60))),
        "encrypted": bytes(encrypted),
        "cut": good[:-30],
        "behind_text": b"PK\3\4" + bytes(100) + good,
    }


def pictures() -> Seeds:
    """Pictures as cameras, telephones and programs write them."""

    def saved(image: Image.Image, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    colour = Image.radial_gradient("L").resize((48, 40)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = colour.convert("L")
    plain = saved(colour, "JPEG")
    return {
        "jpeg.jpg": plain,
        "grey.jpg": saved(grey, "JPEG"),
        "progressive.jpg": saved(colour, "JPEG", progressive=True),
        "turned.jpg": saved(colour, "JPEG", exif=exif),
        "four_inks.jpg": saved(colour.convert("CMYK"), "JPEG"),
        "trailer.jpg": plain + b"\0" * 9 + plain[:200],
        "cut.jpg": plain[:-40],
        "colour.png": saved(colour, "PNG"),
        "alpha.png": saved(colour.convert("RGBA"), "PNG"),
        "palette.png": saved(colour.convert("P"), "PNG"),
        "bits.png": saved(grey.convert("1"), "PNG"),
        "sixteen.png": saved(grey.convert("I;16"), "PNG"),
        "large.png": saved(grey, "PNG").replace(struct.pack(">II", 48, 40), struct.pack(">II", 60_000, 60_000)),
        "cut.png": saved(colour, "PNG")[:-12],
    }


def package() -> Seeds:
    """The toy package, whole and by its members."""
    from tests.builders.toy_package import write_toy_package
    from worker.packages.archive import export_package
    from worker.packages.package import CARD

    with tempfile.TemporaryDirectory() as held:
        name = write_toy_package(Path(held), "tiny_classifier", 32)
        folder = Path(held) / name
        card = (folder / CARD).read_bytes()
        archive = export_package(folder, Path(held) / "toy.zip").read_bytes()
    return {
        "toy.firstread.zip": b"\0" + archive,
        "card": b"\1" + card,
        "card_list": b"\1[]",
        "card_large_input": b"\1" + card.replace(b'"height": 32', b'"height": 100000'),
        "card_many_classes": b"\1" + card.replace(b'"classes": 6', b'"classes": 1000000000'),
        "manifest_list": b"\4[]",
        "manifest_null": b'\4{"sha256": null}',
        "cut": b"\0" + archive[:-30],
    }


def destinations() -> Seeds:
    """The files that the documents show, and wrong ones."""
    from tests.fuzz.destinations import GOOD

    text = (Path(__file__).resolve().parents[2] / "docs" / "deliveries.md").read_text(encoding="utf-8")
    shown = text.split("```toml\n", 1)[1].split("```", 1)[0]
    return {
        "shown.toml": shown.encode(),
        "good.toml": GOOD.encode(),
        "settings.toml": b'ae_title = "SITE"\nquiet_s = 5\nallowed_calling_ae = ["CT1"]\n[retention_days]\nDONE = 30\n',
        "empty.toml": b"",
        "unknown.toml": b"nonsense = 1\n",
        "no_list.toml": b"destination = 5\n",
        "numbers.toml": b"home = 5\ninbox = []\nquiet_s = nan\n",
        "no_text.toml": b"\xff\xfe",
    }


def stow() -> Seeds:
    """Bodies of STOW-RS requests, in pieces of some length."""
    image = encoded(tiny_slice())
    head = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
    end = b"--b--\r\n"
    part = head + image + b"\r\n"
    bodies = {
        "one": part + end,
        "two": part + part + end,
        "cut": part + head + image[:500],
        "cut_in_a_head": head + image[:200],
        "no_part": end,
        "no_boundary": image,
        "other_study": b"\n" + part + end,
        "no_preamble": head + image[132:] + b"\r\n" + end,
        "no_dicom": head + b"text" * 50 + b"\r\n" + end,
        "empty_part": head + b"\r\n" + end,
        "nearly_a_boundary": head + image + b"\r\n--bb\r\n--" + b"\r\n" + end,
        "many_headers": b"--b\r\n" + b"X: y\r\n" * 20 + b"\r\n" + image + b"\r\n" + end,
        "preamble": b"\r\n" + part + end + b"epilogue",
    }
    return {name: bytes([number % 4]) + body for number, (name, body) in enumerate(bodies.items())}


def http() -> Seeds:
    """Requests."""
    get = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n"
    return {
        "get": b"\0" + get + b"\r\n",
        "named": b"\0GET /metrics?name[]=firstread_stored_total HTTP/1.0\r\n\r\n",
        "post": b"\0POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx",
        "options": b"\0OPTIONS * HTTP/1.1\r\n\r\n",
        "tls": b"\0\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        "long_line": b"\0GET /" + b"a" * 33_000 + b" HTTP/1.1\r\n\r\n",
        "mute": b"\1",
        "half": b"\1" + get,
    }


def page() -> Seeds:
    """Requests of the worklist page."""
    host, form = b"Host: 127.0.0.1\r\n", b"Content-Type: application/x-www-form-urlencoded\r\n"
    post = b"\0POST /enter HTTP/1.1\r\n" + host + form
    return {
        "list": b"\0GET / HTTP/1.1\r\n" + host + b"Cookie: firstread=x\r\n\r\n",
        "other_host": b"\0GET / HTTP/1.1\r\nHost: evil\r\n\r\n",
        "enter": post + b"Content-Length: 18\r\n\r\nname=a&password=%ff",
        "key": post + b"Content-Length: 7\r\n\r\nkey=abc",
        "chunked": post + b"Transfer-Encoding: chunked\r\n\r\n3\r\nkey\r\n0\r\n\r\n",
        "length": post + b"Content-Length: \xb2\r\n\r\n",
        "long": post + b"Content-Length: 99999999999\r\n\r\nx",
        "study": b"\0GET /study/99999999999999999999 HTTP/1.1\r\n" + host + b"\r\n",
        "up": b"\0GET /static/..%2f..%2fapp.py HTTP/1.1\r\n" + host + b"\r\n",
        "upgrade": b"\0GET / HTTP/1.1\r\n" + host + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "mute": b"\1",
        "half": b"\1" + post,
    }


MAKERS: Final[dict[str, Callable[[], Seeds]]] = {
    "upper_layer": upper_layer,
    "data_set": data_set,
    **{codec: code_streams(codec) for codec in ("jpeg", "jpeg_ls", "jpeg_2000", "rle")},
    "zip": zips,
    "picture": pictures,
    "package": package,
    "destinations": destinations,
    "http": http,
    "stow": stow,
    "page": page,
}


def main() -> int:
    """Write the corpus of the doors that are named, or of all."""
    for name in sys.argv[1:] or MAKERS:
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith("found-"):
                old.unlink()
        for file, data in MAKERS[name]().items():
            (folder / file).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
