"""A receiver of HL7 messages over MLLP, which reads them with another library than the one that encodes them.

hl7apy has the tables of v2.5.1: it refuses segments and fields that are missing, too many, in a wrong place or of a
wrong type.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from tests.builders.servers import Certificate
from worker.outputs.hl7.encoding import PYTHON_CODECS

START, END = b"\x0b", b"\x1c\r"
REQUIRED = ("MSH", "PID", "OBR", "OBX")
ACCEPTED = frozenset({"AA", "CA", "AE", "CE", "AR", "CR"})


def read_strictly(message: bytes) -> Any:
    """A message as hl7apy reads it by the tables of v2.5.1; it raises where something is against them."""
    character_set = message.split(b"\r")[0].split(b"|")[17].decode()
    text = message.decode(PYTHON_CODECS[character_set])
    assert not set(REQUIRED) - {line[:3] for line in text.split("\r")}
    parsed = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
    parsed.validate()
    return parsed


def fields_of(message: bytes, segment: str, codec: str = "utf-8") -> list[list[str]]:
    """Fields of each segment of a name, as they are on the wire, by their numbers."""
    rows = [line.split("|") for line in message.decode(codec).split("\r") if line.startswith(segment)]
    return [[row[0], "|", *row[1:]] if segment == "MSH" else row for row in rows]


@dataclass
class Receiver:
    """What came, and how the next messages are answered: by the codes of table 0008, or wrongly (:func:`_wrong`)."""

    port: int = 0
    answers: list[str] = field(default_factory=lambda: ["AA"])
    words: str = ""
    messages: list[bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What the strict reading complained about."""

    def acknowledgement(self, code: str, message: bytes, control_id: str | None = None) -> bytes:
        """A framed acknowledgement of a message."""
        asked = fields_of(message, "MSH", "latin-1")[0]
        answered = control_id or asked[10]
        lines = [
            f"MSH|^~\\&|RIS||FIRSTREAD||20261129080000||ACK^R01^ACK|A{len(self.messages)}|P|2.5.1",
            f"MSA|{code}|{answered}",
        ]
        if self.words:
            lines.append(f"ERR|||207^Application internal error^HL70357|E||||{self.words}")
        return START + "\r".join([*lines, ""]).encode() + END

    def next_answer(self) -> str:
        """The last of ``answers`` is given again and again."""
        return self.answers[min(len(self.messages), len(self.answers)) - 1]


def _wrong(receiver: Receiver, connection: socket.socket, kind: str, message: bytes) -> None:
    """Answer as no receiver should."""
    whole = receiver.acknowledgement("AA", message)
    if kind in {"none", "late"}:
        with contextlib.suppress(OSError):
            connection.recv(1)  # until the sender has given up
            if kind == "late":
                connection.sendall(whole)
    elif kind == "half":
        connection.sendall(whole[: len(whole) // 2])
    elif kind == "garbage":
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    elif kind == "no hl7":
        connection.sendall(START + b"thank you" + END)
    elif kind == "no msa":
        connection.sendall(START + whole[1:].split(b"\r")[0] + END)
    elif kind == "another":
        connection.sendall(receiver.acknowledgement("AA", message, "SOMETHINGELSE"))
    else:
        assert kind == "closed", kind


@contextlib.contextmanager
def hl7_receiver(
    *answers: str, words: str = "", tls: Certificate | None = None, mutual: bool = False
) -> Iterator[Receiver]:
    """Run a :class:`Receiver` on the loopback address; with ``mutual`` it wants the sender to show that certificate."""
    receiver = Receiver(answers=list(answers or ["AA"]), words=words)
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(tls.cert_file)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection: socket.socket = self.request
            connection.settimeout(20)
            with contextlib.suppress(OSError):
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                self.answer(connection)
                connection.close()

        def answer(self, connection: socket.socket) -> None:
            frame = b""
            while END not in frame:
                part = connection.recv(65536)
                frame += part
                if not part or not frame.startswith(START):
                    return
            assert frame.endswith(END)
            message = frame[1 : -len(END)]
            receiver.messages.append(message)
            kind = receiver.next_answer()
            try:
                read_strictly(message)
            except (HL7apyException, ValueError, LookupError, AssertionError) as error:
                receiver.faults.append(f"{type(error).__name__}: {error}")
            if kind in ACCEPTED or len(kind) == 2:
                connection.sendall(receiver.acknowledgement(kind, message))
            else:
                _wrong(receiver, connection, kind, message)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join(timeout=5)
