"""HL7 v2 messages over MLLP (Minimal Lower Layer Protocol, HL7 v2 transport specification), perhaps over TLS.

One connection a message: an acknowledgement that comes late can then be no other message's.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import hl7

from firstread.clock import monotonic
from firstread.text import clean
from worker.outputs.destinations.file import Hl7Destination, NotDelivered, Refused
from worker.outputs.hl7.encoding import PYTHON_CODECS, unescaped
from worker.outputs.senders.tls import tls_arguments
from worker.outputs.senders.words import without

START_BLOCK, END_OF_DATA = b"\x0b", b"\x1c"
END_BLOCK = END_OF_DATA + b"\r"
"""Some receivers leave the carriage return out, so an answer ends before it."""

LONGEST_ANSWER = 1 << 20
TAKEN, FAULT, REJECTED = frozenset({"AA", "CA"}), frozenset({"AE", "CE"}), frozenset({"AR", "CR"})
"""MSA-1 (table 0008): original and enhanced mode."""


@dataclass(frozen=True)
class Acknowledgement:
    """The answer to a message: MSA-1, MSA-2, and what MSA-3 and ERR say in words."""

    code: str
    control_id: str
    words: str


def send_message(destination: Hl7Destination, message: bytes, control_id: str, private: Sequence[str]) -> str:
    """Send a message and read its acknowledgement; returns the code of one that accepts it.

    Parameters
    ----------
    private : sequence of str
        Values that a receiver may repeat in its words and no status may hold.

    Raises
    ------
    Refused
        Where the receiver rejects the message (AR, CR): to send it again would change nothing.
    NotDelivered
        Where there is no connection, no acknowledgement in time, another message's, or one of a fault (AE, CE).
    """
    with connect(destination, destination.timeout_s) as connection:
        answer = _exchange(connection, START_BLOCK + message + END_BLOCK, destination.timeout_s)
    acknowledgement = read_acknowledgement(answer, destination.character_set)
    words = without(acknowledgement.words, private)
    status = f"{acknowledgement.code}: {words}" if words else acknowledgement.code
    if acknowledgement.control_id != control_id:
        raise NotDelivered("acknowledgement of another message")
    if acknowledgement.code in REJECTED:
        raise Refused(status)
    if acknowledgement.code not in TAKEN:
        raise NotDelivered(status)
    return status


@contextlib.contextmanager
def connect(destination: Hl7Destination, timeout_s: float) -> Iterator[socket.socket]:
    """A connection to the receiver, over TLS where the destination says so.

    Raises
    ------
    NotDelivered
        Where there is none; the text says why.
    """
    tls = tls_arguments(destination.host, destination.tls)
    with contextlib.ExitStack() as stack:
        try:
            connection = stack.enter_context(
                socket.create_connection((destination.host, destination.port), timeout=timeout_s)
            )
        except OSError as error:
            raise NotDelivered(f"no connection to {destination.host}:{destination.port} ({_why(error)})") from error
        if tls is not None:
            context, name = tls
            with _tls_faults():
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname=name))
        yield connection


@contextlib.contextmanager
def _tls_faults() -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise NotDelivered(f"TLS: the receiver's certificate: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise NotDelivered(f"TLS: {error.reason or type(error).__name__}") from error
    except OSError as error:
        raise NotDelivered(f"TLS: no handshake ({_why(error)})") from error


def _why(error: OSError) -> str:
    """The system's own words, such as ``Connection refused``."""
    return "timed out" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__


def _send(connection: socket.socket, frame: bytes) -> None:
    try:
        connection.sendall(frame)
    except OSError:
        connection.recv(1)  # an alert that came before says more than the broken pipe: that a certificate is wanted
        raise


def _exchange(connection: socket.socket, frame: bytes, timeout_s: float) -> bytes:
    """Send a frame, and read the one that answers it within ``timeout_s``."""
    answer = b""
    try:
        _send(connection, frame)
        end = monotonic() + timeout_s
        while END_OF_DATA not in answer:
            left_s = end - monotonic()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
            part = connection.recv(65536)
            if not part:
                raise NotDelivered("the connection ended within an acknowledgement" if answer else "no acknowledgement")
            answer += part
            if not answer.startswith(START_BLOCK):
                raise NotDelivered("the answer is no MLLP frame")
            if len(answer) > LONGEST_ANSWER:
                raise NotDelivered("the acknowledgement has no end")
    except TimeoutError as error:
        raise NotDelivered(f"no acknowledgement within {timeout_s:g} s") from error
    except ssl.SSLError as error:
        raise NotDelivered(f"TLS: {error.reason or type(error).__name__}") from error
    except OSError as error:
        raise NotDelivered(f"connection lost ({_why(error)})") from error
    return answer[len(START_BLOCK) : answer.index(END_OF_DATA)]


def read_acknowledgement(answer: bytes, character_set: str) -> Acknowledgement:
    """The acknowledgement in a frame (v2.5.1 section 2.9). Raises :class:`NotDelivered` where it is none."""
    codec = PYTHON_CODECS[character_set]
    text = answer.decode(codec, "replace").replace("\r\n", "\r").replace("\n", "\r")
    try:
        message = hl7.parse(text)
        msa = message.segment("MSA")
        errors = [each for each in message if str(each[0]) == "ERR"]
    except (hl7.HL7Exception, LookupError, ValueError, AssertionError) as error:
        raise NotDelivered("the answer is no HL7 acknowledgement") from error
    words = [_value(msa, 3, codec), *(_value(error, number, codec) for error in errors for number in (7, 8))]
    return Acknowledgement(
        clean(_value(msa, 1, codec), 8), _value(msa, 2, codec), clean(", ".join(filter(None, words)))
    )


def _value(segment: hl7.Segment, number: int, codec: str) -> str:
    """A field as one text. python-hl7 is not asked to decode escapes: it stumbles over those that it does not know."""
    return unescaped(str(segment[number]), codec).strip() if number < len(segment) else ""
