"""TFRecord shards of composed input: one ``tf.train.Example`` an item, read back by a tf.data pipeline.

The input is stored before its last scaling as a grey PNG of eight bits, channels side by side: 0.3 HU a step for a
window of 80 HU, and a sixth of the bytes. The mask, where known, is a PNG of 0 to 254; 255 stands for unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from firstread.errors import FirstreadError
from training.datasets.base import Item, place_of
from training.files import NotWritten, written_whole
from worker.packages.card import InputSpec
from worker.packages.preprocessing import compose

IN_MEMORY_BYTES = 1 << 30
"""Shards of at most so much are kept in memory as they are stored, and read from disk once."""

Keep = Callable[[Mapping[str, Any]], Any]
"""Whether a record is wanted, by its columns (:func:`columns_of`); of one record or of an index of them."""


class RecordsError(FirstreadError):
    """Shards are missing, damaged, were prepared for another input, or cannot do what the recipe wants."""


def columns_of(item: Item, labels: np.ndarray, balanced: bool) -> dict[str, Any]:
    """What a record tells of itself beside its picture; the same names stand in the folder's index."""
    return {
        "dataset": item.dataset.encode(),
        "patient": f"{item.dataset}/{item.patient}".encode(),
        "study": item.study.encode(),
        "key": item.key.encode(),
        "split": item.split.encode(),
        "order": float(item.order),
        "place": place_of(item),
        "balanced": int(balanced),
        "attributes": attribute_text(item.attributes),
        "labels": [float(value) for value in labels],
    }


def attribute_text(attributes: Mapping[str, str]) -> bytes:
    """Attributes as one text in which each stands between semicolons: ``;age_group=adult;view=AP;``."""
    pairs = sorted(f"{name}={value.replace(';', ',')}" for name, value in attributes.items())
    return f";{';'.join(pairs)};".encode()


def has_attribute(rows: Mapping[str, Any], name: str, value: str) -> Any:
    """Bool: records, or rows of an index, that have an attribute of this value."""
    column, wanted = rows["attributes"], f";{name}={value};"
    if isinstance(column, np.ndarray):
        return np.char.find(column, wanted.encode()) >= 0
    import tensorflow as tf

    return tf.strings.regex_full_match(column, f".*{re.escape(wanted)}.*")


def example(image: np.ndarray, mask: np.ndarray | None, columns: Mapping[str, Any]) -> bytes:
    """Serialized record of one item; ``image`` (H, W, C) in [0, 1], ``mask`` uint8 (h, w) or None."""
    import tensorflow as tf

    wide = np.round(np.moveaxis(image, -1, 0) * 255).astype(np.uint8)
    flat = np.concatenate(list(wide), axis=1)
    feature = {"image": _bytes(tf, _png(flat)), "mask": _bytes(tf, b"" if mask is None else _png(mask))}
    for name, value in columns.items():
        if isinstance(value, bytes):
            feature[name] = _bytes(tf, value)
        elif isinstance(value, int):
            feature[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            values = value if isinstance(value, list) else [value]
            feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    record = tf.train.Example(features=tf.train.Features(feature=feature))
    return bytes(record.SerializeToString())


def write_records(path: Path, records: Sequence[bytes]) -> None:
    """Write one shard whole or not at all; raises :class:`training.files.NotWritten` on a full disk."""
    import tensorflow as tf

    with written_whole(path) as partial:
        try:
            with tf.io.TFRecordWriter(str(partial)) as writer:
                for record in records:
                    writer.write(record)
        except tf.errors.OpError as error:
            raise NotWritten(f"cannot write {path.name}: {error.message.rpartition('; ')[2]}") from error


def read_records(
    paths: Sequence[Path],
    spec: InputSpec,
    n_labels: int,
    mask_size: tuple[int, int] | None = None,
    keep: Keep | None = None,
) -> Any:
    """A tf.data pipeline over shards, decoded in parallel and in a fixed order.

    Returns
    -------
    tf.data.Dataset
        Of dicts: ``image`` float32 (H, W, C) in [0, 1], ``labels`` float32 (labels,), ``mask`` float32 (h, w) with -1
        for unknown (only with ``mask_size``), and what else :func:`columns_of` names.

    Raises
    ------
    RecordsError
        Without shards.
    """
    import tensorflow as tf

    records = _wanted(_serialized(paths), n_labels, keep)
    return records.map(_decoder(spec, n_labels, mask_size), num_parallel_calls=tf.data.AUTOTUNE)


def training_pipeline(
    paths: Sequence[Path],
    spec: InputSpec,
    n_labels: int,
    batch_size: int,
    seed: int,
    mask_size: tuple[int, int] | None = None,
    augment: Any = None,
    shuffle: int = 4096,
    groups: Sequence[tuple[float, Keep | None]] = ((1.0, None),),
    first_step: int = 0,
) -> Any:
    """Shards as endless shuffled batches of (input, targets): cache, shuffle, draw, decode, augment, batch, prefetch.

    Records are shuffled as they are stored, so that neither the shuffle nor skipping to a later step decodes pictures.

    Parameters
    ----------
    augment : Augment or None
        Applied picture by picture, with a generator from (seed, position in the stream).
    groups : sequence of (float, function or None)
        Shares of the stream, and which records each is drawn from; every group must have a record.
    first_step : int
        Batches that are left out at the start: a run that goes on gets what it would have got.
    """
    import tensorflow as tf

    small = sum(path.stat().st_size for path in paths) <= IN_MEMORY_BYTES
    serialized = _serialized(paths, None if small else seed)

    def endless(keep: Keep | None) -> Any:
        records = _wanted(serialized, n_labels, keep)
        records = records.cache() if small else records
        return records.shuffle(shuffle, seed=seed, reshuffle_each_iteration=True).repeat()

    streams = [endless(keep) for _, keep in groups]
    weights = [share for share, _ in groups]
    stream = streams[0]
    if len(streams) > 1:
        stream = tf.data.Dataset.sample_from_datasets(streams, weights, seed=seed, stop_on_empty_dataset=False)
    mask_shape, decode = mask_size or (1, 1), _decoder(spec, n_labels, mask_size)

    def bend(image: np.ndarray, mask: np.ndarray, number: np.int64) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((seed, int(number)))
        bent, moved = augment.apply(np.array(image), np.array(mask) if mask_size else None, rng)
        scaled = compose.scale(bent, spec).astype(np.float32)
        return scaled, np.asarray(mask if moved is None else moved, dtype=np.float32)

    def batch_row(number: Any, record: Any) -> tuple[Any, dict[str, Any]]:
        row = decode(record)
        image, mask = row["image"], row.get("mask", tf.zeros(mask_shape))
        if augment is None:
            image = compose.scale(image, spec)
        else:
            image, mask = tf.numpy_function(bend, [image, mask, number], (tf.float32, tf.float32))
        image = tf.ensure_shape(image, (spec.height, spec.width, spec.channels))
        targets = {"logits": row["labels"]}
        if mask_size is not None:
            targets |= {"mask_logits": tf.ensure_shape(mask, mask_size), "peak": row["labels"][:1]}
        return image, targets

    stream = stream.skip(first_step * batch_size).enumerate(first_step * batch_size)
    stream = stream.map(batch_row, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return stream.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _serialized(paths: Sequence[Path], seed: int | None = None) -> Any:
    """Records as they are stored, of four shards at a time; with a seed the order of the shards changes each time."""
    import tensorflow as tf

    if not paths:
        raise RecordsError("no shards (*.tfrecord) in that folder; make them with `firstread prepare`")
    files = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    if seed is not None:
        files = files.shuffle(len(paths), seed=seed, reshuffle_each_iteration=True)
    return files.interleave(
        tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _wanted(records: Any, n_labels: int, keep: Keep | None) -> Any:
    import tensorflow as tf

    if keep is None:
        return records
    features = _column_features(tf, n_labels)
    return records.filter(lambda record: keep(tf.io.parse_single_example(record, features)))


def _column_features(tf: Any, n_labels: int) -> dict[str, Any]:
    kinds = dict.fromkeys(("dataset", "patient", "study", "key", "split", "attributes"), tf.string)
    kinds |= {"order": tf.float32, "place": tf.int64, "balanced": tf.int64}
    fields = {name: tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}
    return {**fields, "labels": tf.io.FixedLenFeature([n_labels], tf.float32)}


def _decoder(spec: InputSpec, n_labels: int, mask_size: tuple[int, int] | None) -> Callable[[Any], dict[str, Any]]:
    """A function from a stored record to its picture, its mask and its columns."""
    import tensorflow as tf

    text = tf.io.FixedLenFeature([], tf.string)
    features = _column_features(tf, n_labels)

    def decode(record: Any) -> dict[str, Any]:
        row = tf.io.parse_single_example(record, {**features, "image": text, "mask": text})
        wide = tf.io.decode_png(row["image"], channels=1)[..., 0]
        image = tf.transpose(tf.reshape(wide, (spec.height, spec.channels, spec.width)), (0, 2, 1))
        columns = {name: row[name] for name in features}
        columns["image"] = tf.cast(image, tf.float32) / 255.0
        if mask_size is not None:
            columns["mask"] = tf.cond(
                tf.equal(tf.strings.length(row["mask"]), 0),
                lambda: tf.fill(mask_size, -1.0),
                lambda: tf.reshape(tf.cast(tf.io.decode_png(row["mask"], channels=1), tf.float32) / 254.0, mask_size),
            )
        return columns

    return decode


def _bytes(tf: Any, value: bytes) -> Any:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())
