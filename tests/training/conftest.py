"""Of all tests of training: one toy run, cheap graphs, and intervals from few resamples where no number is named."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.toy_runs import ToyRun, recipe_of, run_recipe
from tests.builders.toy_sets import write_ct_ich, write_phe_sich, write_two_windows
from training.datasets.arrays import Arrays, open_arrays
from training.evaluation import metrics
from training.package.order import Order
from training.train import train_all

BUSY_S = 400
"""For a test, or the fixture that it waits for: a toy training takes a minute where other tests have the cores too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trainings may take longer than other tests; a test's own limit counts."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUSY_S))


@pytest.fixture(scope="session", autouse=True)
def few_resamples() -> Iterator[None]:
    """A tenth of the resamples; the tests of intervals name their own number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "REPEATS", 100)
        yield


@pytest.fixture(scope="session", autouse=True)
def plain_graphs() -> None:
    """Graphs as they are traced: to optimize one costs more than the few steps of a toy training."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy data sets of the toy recipe. Tests only read them."""
    root = tmp_path_factory.mktemp("toy")
    write_ct_ich(root / "ct_ich")
    write_phe_sich(root / "phe_sich")
    write_two_windows(root / "ct_ich_two_windows")
    return root


@pytest.fixture(scope="session")
def toy_arrays(toy_data: Path) -> Arrays:
    """The toy data sets, decoded. Tests only read them."""
    return open_arrays(recipe_of(toy_data), toy_data, None)


@pytest.fixture(scope="session")
def toy_run(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ToyRun:
    """Both folds trained, evaluated, joined and packed, once for all tests of all processes that share them."""
    recipe, base = run_recipe(toy_data), tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    out, note = base / "toy_run", base / "toy_run.package"
    with (base / "toy_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go with the file
        if not note.is_file():
            package = train_all(Order(recipe=recipe, data=toy_data, out=out))
            assert package is not None
            note.write_text(str(package))
    return ToyRun(recipe, out, Path(note.read_text()))
