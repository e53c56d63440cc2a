"""Network passes a second by batch and engine, of the shipped network of heads, each engine in a process of its own.

What a worker serves with is loaded as the worker loads it. Beside it stand bare engines: the same network without
calibration, flipped views or checks of numbers. A picture that is also scored mirrored counts as two passes.

``python -m tests.bench.inference ENGINE SECONDS`` measures one engine once and prints JSON.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from firstread.settings import Settings, default_models_dir
from tests.bench.figures import Collected, Figure
from tests.bench.site import engines
from tests.bench.sizes import Sizes
from worker.packages.runtimes.openvino import has_bfloat16, import_openvino

BATCHES = (1, 8, 32)
AS_SERVED = ", as served"
BARE_TENSORFLOW, BARE_OPENVINO = "TensorFlow, bare", "OpenVINO, bare, float32"
BARE_BFLOAT16 = "OpenVINO, bare, bfloat16"
NETWORK = "head_ct_bleed"
LIMIT_S = 600.0
Predict = Callable[[np.ndarray], Any]


def measure(folder: Path, sizes: Sizes) -> list[Figure]:
    """Engines by turns, each a process; ``folder`` is not needed."""
    found = Collected()
    able, lacking = engines()
    missing = {f"{name}{AS_SERVED}": reason for name, reason in lacking.items()}
    names = [*(f"{name}{AS_SERVED}" for name in able), BARE_TENSORFLOW]
    if importlib.util.find_spec("openvino") is None:
        missing[BARE_OPENVINO] = "openvino is not installed"
    else:
        names.append(BARE_OPENVINO)
        if has_bfloat16():
            names.append(BARE_BFLOAT16)
        else:
            missing[BARE_BFLOAT16] = "this processor does not compute in bfloat16"
    names = sizes.pick(names, names[:1])
    for turn in range(sizes.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            for batch, passes in _in_a_process(name, sizes.pick(3.0, 0.1)).items():
                found.add(name, f"passes/s, batch {batch}", "1/s", passes)
    for name, reason in missing.items():
        found.lacks(name, f"passes/s, batch {BATCHES[0]}", "1/s", reason)
    return found.figures()


def _in_a_process(name: str, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.inference", name, str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def predict_of(name: str) -> tuple[Predict, tuple[int, ...], int]:
    """What scores a batch, the shape of a picture, and passes a picture."""
    if name.endswith(AS_SERVED):
        return _served(engines()[0][name.removesuffix(AS_SERVED)])
    from worker.packages.package import load
    from worker.packages.runtimes.startup import start_tensorflow

    start_tensorflow()
    package = load(sorted((default_models_dir() / NETWORK).iterdir())[-1], self_test=False)
    spec = package.card.input
    shape = (spec.height, spec.width, spec.channels)
    if name == BARE_TENSORFLOW:
        return _bare_tensorflow(package.model, shape), shape, 1
    return _bare_openvino(package.model, shape, "bf16" if name == BARE_BFLOAT16 else "f32"), shape, 1


def _served(changes: dict[str, Any]) -> tuple[Predict, tuple[int, ...], int]:
    """The newest package of heads, loaded as a worker does."""
    from worker.engine.loading import load_serving

    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(default_models_dir() / NETWORK, Path(folder) / "models" / NETWORK)
        serving = load_serving(Settings(home=Path(folder), models_dir=Path(folder) / "models", **changes))
    (tasks,) = serving.by_pipeline.values()
    served = next(group[0] for group in tasks.values())
    spec = served.card.input
    passes = 2 if served.card.parameters.get("flip") else 1
    return serving.models[served.key].predict, (spec.height, spec.width, spec.channels), passes


def _bare_tensorflow(model: Any, shape: tuple[int, ...]) -> Predict:
    import tensorflow as tf

    pixels = tf.TensorSpec((None, *shape), tf.float32)
    call = tf.function(lambda x: model(x, training=False), input_signature=[pixels])
    return lambda x: {name: value.numpy() for name, value in call(tf.constant(x)).items()}


def _bare_openvino(model: Any, shape: tuple[int, ...], arithmetic: str) -> Predict:
    ov = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, verbose=False)
        converted = ov.convert_model(folder)
    requests = {}
    for batch in BATCHES:
        fixed = converted.clone()
        fixed.reshape([batch, *shape])
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": arithmetic}
        requests[batch] = ov.Core().compile_model(fixed, "CPU", options).create_infer_request()
    return lambda x: requests[len(x)].infer({0: x}, share_inputs=True)


def passes_a_second(predict: Predict, shape: tuple[int, ...], passes: int, batch: int, seconds: float) -> float:
    """Of a batch size, over some seconds after two warm runs."""
    x = np.random.default_rng(0).random((batch, *shape), dtype=np.float32)
    for _ in range(2):
        predict(x)
    started, runs = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds or not runs:
        predict(x)
        runs += 1
    return passes * batch * runs / passed


def main() -> None:
    """Measure one engine."""
    predict, shape, passes = predict_of(sys.argv[1])
    seconds = float(sys.argv[2])
    print(json.dumps({batch: passes_a_second(predict, shape, passes, batch, seconds) for batch in BATCHES}))


if __name__ == "__main__":
    main()
