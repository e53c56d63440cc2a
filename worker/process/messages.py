"""What a worker believes of a message on the broker: that it is a doorbell, and nothing else.

Whoever reaches Redis can put anything into the queue. A message that is no doorbell of ours is dropped and counted; of
one that is, three whole numbers are kept, for the log alone. No date, no callback and no time limit of it counts.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from kombu.transport import redis
from kombu.transport.virtual import base
from kombu.utils.json import loads

from firstread.queue import TASK_NAME
from worker import metrics

log = logging.getLogger(__name__)

NUMBERS = ("revision_id", "study_key", "number")
LONGEST = 64 * 1024
"""Characters of a message; a doorbell has about 600."""
LONGEST_ID = 64


class NoDoorbell(ValueError):
    """A message of the queue that nobody of ours has sent."""


class Doorbell(base.Message):  # type: ignore[misc]
    """A message of the queue, of which only the doorbell is left. Raises :class:`NoDoorbell` where it is none."""

    headers: Any
    body: Any
    delivery_tag: Any
    delivery_info: Any

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **options)
            self._keep_the_doorbell()
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise NoDoorbell(type(error).__name__) from error

    def _keep_the_doorbell(self) -> None:
        if self.headers["task"] != TASK_NAME or self.content_type != "application/json":
            raise ValueError("another task")
        arguments, named, _ = json.loads(self.body)
        if arguments or set(named) != set(NUMBERS) or not all(type(named[name]) is int for name in NUMBERS):
            raise ValueError("other arguments")
        identity = str(self.headers["id"])[:LONGEST_ID]
        self.headers = {"task": TASK_NAME, "id": identity, "root_id": identity, "lang": "py", "retries": 0}
        self.body = json.dumps([[], {name: named[name] for name in NUMBERS}, {}])
        self.content_encoding = "utf-8"
        self.delivery_tag = str(self.delivery_tag)
        self.delivery_info = {name: str(self.delivery_info[name]) for name in ("exchange", "routing_key")}
        self.properties = {"delivery_tag": self.delivery_tag, "body_encoding": "base64"}


def take_only_doorbells() -> None:
    """Make the broker's channels of this process drop what is no doorbell; a worker then never ends of a message."""
    redis.Channel.Message = Doorbell
    redis.loads = _loads
    read = redis.Channel._brpop_read
    if getattr(read, "drops_other_messages", False):
        return

    def read_doorbell(channel: Any, **options: Any) -> Any:
        try:
            return read(channel, **options)
        except NoDoorbell as error:
            metrics.DOORBELLS.labels("unreadable").inc()
            log.warning("a message on the broker was no doorbell", extra={"reason": str(error)})
            return None

    read_doorbell.drops_other_messages = True  # type: ignore[attr-defined]
    redis.Channel._brpop_read = read_doorbell


def _loads(text: str) -> Any:
    if len(text) > LONGEST:
        raise NoDoorbell("too long")
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        raise NoDoorbell(type(error).__name__) from error
