"""TFRecord shards of composed input: one ``tf.train.Example`` an item, read back by a tf.data pipeline.

The input is stored before its last scaling as a grey PNG of eight bits, channels side by side: 0.3 HU a step for a
window of 80 HU, and a sixth of the bytes. The mask, where known, is a PNG of 0 to 254; 255 stands for unknown.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from firstread.errors import FirstreadError
from training.datasets.base import Item
from worker.packages import preprocessing
from worker.packages.card import InputSpec


class RecordsError(FirstreadError):
    """Shards are missing, damaged, or were prepared for another input."""


def example(image: np.ndarray, labels: np.ndarray, mask: np.ndarray | None, item: Item) -> bytes:
    """Serialized record of one item; ``image`` (H, W, C) in [0, 1], ``mask`` uint8 (h, w) or None."""
    import tensorflow as tf

    wide = np.round(np.moveaxis(image, -1, 0) * 255).astype(np.uint8)
    flat = np.concatenate(list(wide), axis=1)
    feature = {
        "image": _bytes(tf, _png(flat)),
        "labels": tf.train.Feature(float_list=tf.train.FloatList(value=labels.tolist())),
        "mask": _bytes(tf, b"" if mask is None else _png(mask)),
        "patient": _bytes(tf, f"{item.dataset}/{item.patient}".encode()),
        "study": _bytes(tf, item.study.encode()),
        "key": _bytes(tf, item.key.encode()),
        "split": _bytes(tf, item.split.encode()),
    }
    record = tf.train.Example(features=tf.train.Features(feature=feature))
    return bytes(record.SerializeToString())


def write_records(path: Path, records: Sequence[bytes]) -> None:
    """Write one shard whole or not at all."""
    import tensorflow as tf

    partial = path.with_suffix(".part")
    with tf.io.TFRecordWriter(str(partial)) as writer:
        for record in records:
            writer.write(record)
    os.replace(partial, path)


def read_records(
    paths: Sequence[Path], spec: InputSpec, n_labels: int, mask_size: tuple[int, int] | None = None
) -> Any:
    """A tf.data pipeline over shards, decoded in parallel and in a fixed order.

    Returns
    -------
    tf.data.Dataset
        Of dicts: ``image`` float32 (H, W, C) in [0, 1], ``labels`` float32 (labels,), ``mask`` float32 (h, w) with -1
        for unknown (only with ``mask_size``), ``patient``, ``key``, ``split`` as strings.

    Raises
    ------
    RecordsError
        Without shards.
    """
    import tensorflow as tf

    if not paths:
        raise RecordsError("no shards (*.tfrecord) in that folder; make them with `firstread prepare`")
    text = tf.io.FixedLenFeature([], tf.string)
    fields: dict[str, Any] = dict.fromkeys(("image", "mask", "patient", "study", "key", "split"), text)
    fields["labels"] = tf.io.FixedLenFeature([n_labels], tf.float32)

    def decode(record: Any) -> dict[str, Any]:
        row = tf.io.parse_single_example(record, fields)
        wide = tf.io.decode_png(row["image"], channels=1)[..., 0]
        image = tf.transpose(tf.reshape(wide, (spec.height, spec.channels, spec.width)), (0, 2, 1))
        found = {name: row[name] for name in ("labels", "patient", "key", "split")}
        found["image"] = tf.cast(image, tf.float32) / 255.0
        if mask_size is not None:
            found["mask"] = tf.cond(
                tf.equal(tf.strings.length(row["mask"]), 0),
                lambda: tf.fill(mask_size, -1.0),
                lambda: tf.reshape(tf.cast(tf.io.decode_png(row["mask"], channels=1), tf.float32) / 254.0, mask_size),
            )
        return found

    files = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    records = files.interleave(tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE)
    return records.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def training_pipeline(
    paths: Sequence[Path],
    spec: InputSpec,
    n_labels: int,
    batch_size: int,
    seed: int,
    mask_size: tuple[int, int] | None = None,
    augment: Any = None,
    shuffle: int = 4096,
    cache: Path | None = None,
    keep: Any = None,
) -> Any:
    """Shards as endless shuffled batches of (input, targets): decode, cache, shuffle, augment, batch, prefetch.

    Parameters
    ----------
    augment : Augment or None
        Applied picture by picture, with a generator from (seed, position in the stream).
    cache : Path or None
        File for tf.data's cache of decoded records; None caches nothing.
    keep : function or None
        Of a record's patient (string tensor): whether it is trained on.
    """
    import tensorflow as tf

    stream = read_records(paths, spec, n_labels, mask_size)
    if keep is not None:
        stream = stream.filter(lambda row: keep(row["patient"]))
    if cache is not None:
        stream = stream.cache(str(cache))
    stream = stream.shuffle(shuffle, seed=seed, reshuffle_each_iteration=True).repeat()
    mask_shape = mask_size or (1, 1)

    def bend(image: np.ndarray, mask: np.ndarray, number: np.int64) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((seed, int(number)))
        bent, moved = augment.apply(np.array(image), np.array(mask) if mask_size else None, rng)
        scaled = preprocessing.scale(bent, spec).astype(np.float32)
        return scaled, np.asarray(mask if moved is None else moved, dtype=np.float32)

    def finish(number: Any, row: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        image, mask = row["image"], row.get("mask", tf.zeros(mask_shape))
        if augment is None:
            image = preprocessing.scale(image, spec)
        else:
            image, mask = tf.numpy_function(bend, [image, mask, number], (tf.float32, tf.float32))
        image = tf.ensure_shape(image, (spec.height, spec.width, spec.channels))
        targets = {"logits": row["labels"]}
        if mask_size is not None:
            targets |= {"mask_logits": tf.ensure_shape(mask, mask_size), "peak": row["labels"][:1]}
        return image, targets

    stream = stream.enumerate().map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return stream.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def shards_in(folder: Path) -> list[Path]:
    """The shards of a prepared folder, in order."""
    return sorted(folder.glob("*.tfrecord"))


def _bytes(tf: Any, value: bytes) -> Any:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())
