"""What of a run stands in the rows of its results."""

from __future__ import annotations

import pytest

from worker.scoring.results import engine_of

ENGINES = {"a/1": "tensorflow", "b/2": "openvino_int8", "c/1": "tensorflow"}


@pytest.mark.parametrize(
    ("name", "version", "engine"),
    [
        ("a", "1", "tensorflow"),
        ("b", "2", "openvino_int8"),
        ("a+c", "1+1", "tensorflow"),
        ("b+a+c", "2+1+1", "openvino_int8+tensorflow"),
        ("outline", "1", None),
    ],
)
def test_the_engine_of_a_package_or_of_several(name: str, version: str, engine: str | None) -> None:
    assert engine_of(name, version, ENGINES) == engine
