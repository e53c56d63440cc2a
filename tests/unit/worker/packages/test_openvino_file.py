"""Converted files: served with the reference's numbers and without TensorFlow, and never where anything differs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstread.settings import Settings
from tests.builders.toy_package import write_toy_package
from worker.engine.loading import fingerprint, load_serving
from worker.metrics import MODEL_ENGINE_INFO
from worker.packages.archive import export_package, import_package
from worker.packages.card import ChecksumError, PackageError, SelfTestError
from worker.packages.converted import file_of
from worker.packages.openvino_file import ProcessorError, load_openvino, read_openvino_file
from worker.packages.package import CARD, PAGE, load, read_card, read_golden
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.openvino import OpenVinoPackage, has_bfloat16
from worker.packages.runtimes.tensorflow import Package

pytest.importorskip("openvino", reason="the extra openvino is not installed")

KEY = "toy/1.0.0"
FILE = file_of("fp32")


def converted_toy(models: Path, builder: str) -> Path:
    """A models folder with a toy package and its converted file."""
    from training.optimize.conversion import convert
    from training.optimize.writing import adopt
    from worker.packages.runtimes.startup import ensure_tensorflow

    ensure_tensorflow()
    directory = models / write_toy_package(models, builder)
    adopt(directory, convert(directory, load(directory), "fp32"), "fp32")
    return models


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose logits hear the mask: their slopes along the pooled maps differ from pixel to pixel."""
    return converted_toy(tmp_path_factory.mktemp("models"), "tiny_unet")


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one dense layer on pooled maps."""
    return converted_toy(tmp_path_factory.mktemp("linear"), "tiny_classifier")


@pytest.fixture
def models(converted: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(converted, tmp_path / "models"))


def settings_of(models: Path, tmp_path: Path, **more: Any) -> Settings:
    return Settings(home=tmp_path / "home", models_dir=models, engine="openvino", **more)


def engine_shown() -> dict[str, str]:
    """Engine and reason of the toy package, as the metric shows them."""
    samples = [s for family in MODEL_ENGINE_INFO.collect() for s in family.samples if s.labels["model"] == KEY]
    return {s.labels["outcome"]: s.labels["reason"] for s in samples}


def reference_and_input(models: Path) -> tuple[Package, np.ndarray]:
    """The toy package by TensorFlow, and eleven rows: one batch of eight and three of one."""
    reference = load(models / KEY)
    pixels = read_golden(models / KEY, reference.card)[0]
    return reference, compose(np.tile(pixels, (4, 1, 1))[:11], reference.card.input)


SERVED = """
import json, sys
from pathlib import Path
import numpy as np
from firstread.settings import Settings
from worker.engine.loading import load_serving

serving = load_serving(Settings())
x = np.load(sys.argv[1])
model = serving.models["toy/1.0.0"]
outputs = {**model.predict(x), "maps": model.class_maps(x, "any"), "gradients": model.gradients(x, "subdural")}
np.savez(sys.argv[2], **outputs)
telemetry = sys.modules["openvino_telemetry"] is not None
print(json.dumps({"tensorflow": "tensorflow" in sys.modules, "telemetry": telemetry}))
"""


@pytest.mark.timeout(600)
def test_a_worker_without_tensorflow_gives_the_reference_s_numbers_and_maps(linear: Path, tmp_path: Path) -> None:
    reference, x = reference_and_input(linear)
    np.save(tmp_path / "x.npy", x)
    environment = {
        **os.environ,
        "FIRSTREAD_HOME": str(tmp_path / "home"),
        "FIRSTREAD_MODELS_DIR": str(linear),
        "FIRSTREAD_ENGINE": "openvino",
    }
    command = [sys.executable, "-c", SERVED, str(tmp_path / "x.npy"), str(tmp_path / "out.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=580)
    assert json.loads(done.stdout.splitlines()[-1]) == {"tensorflow": False, "telemetry": False}
    maps = {"maps": reference.class_maps(x, "any"), "gradients": reference.gradients(x, "subdural")}
    expected = {**reference.predict(x), **maps}
    with np.load(tmp_path / "out.npz") as served:
        assert set(served.files) == set(expected)
        for name, value in expected.items():
            assert value.shape == served[name].shape
            np.testing.assert_allclose(served[name], value, atol=1e-5, err_msg=name)


def test_class_maps_of_a_network_that_is_not_linear_come_from_tensorflow(converted: Path) -> None:
    reference, x = reference_and_input(converted)
    assert not read_openvino_file(converted / KEY / FILE).slopes
    package = load_openvino(converted / KEY, read_card(converted / KEY), "fp32")
    np.testing.assert_allclose(package.class_maps(x, "any"), reference.class_maps(x, "any"), atol=1e-5)
    outputs, expected = package.predict(x), reference.predict(x)
    for name in ("p", "p_raw", "mask"):
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)


def test_the_engine_that_runs_a_package_is_shown(converted: Path, tmp_path: Path) -> None:
    MODEL_ENGINE_INFO.clear()
    load_serving(settings_of(converted, tmp_path))
    assert engine_shown() == {"openvino_fp32": ""}


def cut(models: Path) -> None:
    path = models / KEY / FILE
    path.write_bytes(path.read_bytes()[:-1])


def other_golden(models: Path) -> None:
    """The file of a machine whose arithmetic is another one."""
    path = models / KEY / FILE
    content = read_openvino_file(path)
    replace(content, golden=content.golden + 0.02).write(path)
    name_anew(models)


def name_anew(models: Path) -> None:
    """Let the card name the file that is there."""
    from worker.packages.package import sha256_of

    directory = models / KEY
    card = read_card(directory)
    row = card.converted["fp32"].model_copy(update={"sha256": sha256_of(directory / FILE)})
    card.model_copy(update={"converted": {"fp32": row}}).write(directory / CARD)


def no_network(models: Path) -> None:
    path = models / KEY / FILE
    replace(read_openvino_file(path), graph=b"<net/>").write(path)
    name_anew(models)


def other_weights(models: Path) -> None:
    directory = models / KEY
    card = read_card(directory)
    row = card.converted["fp32"].model_copy(update={"weights_sha256": "0" * 64})
    card.model_copy(update={"converted": {"fp32": row}}).write(directory / CARD)


def not_converted(models: Path) -> None:
    directory = models / KEY
    read_card(directory).model_copy(update={"converted": {}}).write(directory / CARD)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut, "checksum"),
        (other_golden, "self_test"),
        (no_network, "package_error"),
        (other_weights, "checksum"),
        (not_converted, "not_converted"),
        (lambda models: (models / KEY / FILE).unlink(), "package_error"),
    ],
    ids=["cut", "other_golden", "no_network", "other_weights", "not_converted", "missing"],
)
def test_where_the_file_fails_the_reference_serves_and_says_why(
    models: Path, tmp_path: Path, harm: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    harm(models)
    MODEL_ENGINE_INFO.clear()
    serving = load_serving(settings_of(models, tmp_path))
    assert not serving.refused
    assert list(serving.models) == [KEY]
    assert engine_shown() == {"tensorflow": reason}
    assert [r.levelname for r in caplog.records if "in the place of OpenVINO" in r.message] == ["WARNING"]


@pytest.fixture
def two_files(models: Path) -> Path:
    """The package with a second file, which is tried before the first."""
    from training.optimize.writing import adopt

    adopt(models / KEY, read_openvino_file(models / KEY / FILE), "fp16")
    return models


def test_a_file_that_fails_leaves_the_package_to_the_next_one(
    two_files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from firstread_cli.doctor.command import check_models

    MODEL_ENGINE_INFO.clear()
    settings = settings_of(two_files, tmp_path)
    load_serving(settings)
    assert engine_shown() == {"openvino_fp16": ""}
    path = two_files / KEY / file_of("fp16")
    path.write_bytes(path.read_bytes()[:-1])
    MODEL_ENGINE_INFO.clear()
    load_serving(settings)
    assert engine_shown() == {"openvino_fp32": ""}
    assert [r.levelname for r in caplog.records if "fp16 does not serve" in r.message] == ["WARNING"]
    (engine,) = [check for check in check_models(settings) if check.name == f"engine {KEY}"]
    assert engine.status == "warn" and "OpenVINO fp32" in engine.detail and "not fp16" in engine.detail


def test_a_file_that_openvino_cannot_run_leaves_the_package_to_the_next_one(
    two_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, calls = OpenVinoPackage._infer, []

    def breaks_at_first(self: OpenVinoPackage, rows: np.ndarray) -> dict[str, np.ndarray]:
        calls.append(len(rows))
        if len(calls) == 1:
            raise RuntimeError("not on this machine")
        return infer(self, rows)

    monkeypatch.setattr(OpenVinoPackage, "_infer", breaks_at_first)
    MODEL_ENGINE_INFO.clear()
    load_serving(settings_of(two_files, tmp_path))
    assert engine_shown() == {"openvino_fp32": ""}
    assert calls == [8, 8, 1], "every size of a batch is tried"


def test_batches_that_differ_by_their_size_do_not_serve(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = OpenVinoPackage._infer

    def wrong_in_eights(self: OpenVinoPackage, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = infer(self, rows)
        return {name: value + 1.0 for name, value in found.items()} if len(rows) == 8 else found

    monkeypatch.setattr(OpenVinoPackage, "_infer", wrong_in_eights)
    MODEL_ENGINE_INFO.clear()
    load_serving(settings_of(models, tmp_path))
    assert engine_shown() == {"tensorflow": "self_test"}


def test_a_file_that_breaks_while_it_is_taken_in_leaves_the_former_one(
    two_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.optimize import writing

    def breaks(*_: object) -> None:
        raise KeyboardInterrupt

    path = two_files / KEY / file_of("fp16")
    content, before = read_openvino_file(path), path.read_bytes()
    monkeypatch.setattr(writing, "load_openvino", breaks)
    with pytest.raises(KeyboardInterrupt):
        writing.adopt(two_files / KEY, replace(content, golden=content.golden + 0.5), "fp16")
    assert path.read_bytes() == before


@pytest.fixture
def bfloat16(models: Path) -> Path:
    """The package as it computes in bfloat16, with the golden outputs that it has so."""
    from training.optimize.conversion import convert
    from training.optimize.writing import adopt

    if not has_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    adopt(models / KEY, convert(models / KEY, load(models / KEY), "bf16"), "bf16")
    return models


def test_bfloat16_serves_near_the_reference_s_numbers(bfloat16: Path, tmp_path: Path) -> None:
    MODEL_ENGINE_INFO.clear()
    serving = load_serving(settings_of(bfloat16, tmp_path))
    assert engine_shown() == {"openvino_bf16": ""}
    reference, x = reference_and_input(bfloat16)
    apart = np.abs(serving.models[KEY].predict(x)["p"] - reference.predict(x)["p"]).max()
    assert 2e-4 < apart < 0.02, "bfloat16 rounds, and not by much; float32 would be much closer"


def test_without_bfloat16_the_file_is_passed_over(
    two_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from training.optimize.writing import adopt

    monkeypatch.setattr("worker.packages.openvino_file.has_bfloat16", lambda: False)
    directory = two_files / KEY
    content = read_openvino_file(directory / FILE)
    with pytest.raises(ProcessorError, match="bfloat16"):
        adopt(directory, content, "bf16")
    assert not (directory / file_of("bf16")).exists()
    shutil.copy(directory / FILE, directory / file_of("bf16"))
    card = read_card(directory)
    rows = {"bf16": card.converted["fp32"], "fp32": card.converted["fp32"]}
    card.model_copy(update={"converted": rows}).write(directory / CARD)
    MODEL_ENGINE_INFO.clear()
    caplog.set_level("INFO")
    load_serving(settings_of(two_files, tmp_path))
    assert engine_shown() == {"openvino_fp32": ""}
    assert [r.levelname for r in caplog.records if "bf16 does not serve" in r.message] == ["INFO"]
    MODEL_ENGINE_INFO.clear()
    load_serving(settings_of(two_files, tmp_path, engine_precisions=("bf16",)))
    assert engine_shown() == {"tensorflow": "processor"}
    cut(two_files)
    MODEL_ENGINE_INFO.clear()
    load_serving(settings_of(two_files, tmp_path))
    assert engine_shown() == {"tensorflow": "checksum"}, "the reason that a person can do something about"


def test_doctor_names_the_engine_and_why_it_does_not_serve(models: Path, tmp_path: Path) -> None:
    from firstread_cli.doctor.command import check_models

    settings = settings_of(models, tmp_path)
    lines = {check.name: check for check in check_models(settings)}
    assert lines[f"engine {KEY}"].status == "ok"
    cut(models)
    lines = {check.name: check for check in check_models(settings)}
    assert lines[f"model {KEY}"].status == "ok"
    assert lines[f"engine {KEY}"].status == "warn"
    assert "TensorFlow serves" in lines[f"engine {KEY}"].detail


def test_verify_runs_the_converted_files_too(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from firstread_cli.models import models as command

    monkeypatch.setenv("FIRSTREAD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTREAD_MODELS_DIR", str(models))
    assert CliRunner().invoke(command, ["verify"]).exit_code == 0
    other_golden(models)
    result = CliRunner().invoke(command, ["verify"])
    assert result.exit_code == 1
    assert f"FAILED  {KEY}" in result.output


def test_a_precision_that_may_not_serve_is_passed_over(converted: Path, tmp_path: Path) -> None:
    MODEL_ENGINE_INFO.clear()
    load_serving(settings_of(converted, tmp_path, engine_precisions=("int8",)))
    assert engine_shown() == {"tensorflow": "not_converted"}


def test_a_package_takes_its_converted_file_along(models: Path, tmp_path: Path) -> None:
    archive = export_package(models / KEY, tmp_path)
    directory = import_package(archive, tmp_path / "imported")
    assert sorted(p.name for p in directory.iterdir()) == sorted(p.name for p in (models / KEY).iterdir())
    load_openvino(directory, read_card(directory), "fp32")
    cut(models)
    with pytest.raises(ChecksumError, match=FILE):
        export_package(models / KEY, tmp_path / "again.zip")


def test_another_file_is_another_package_to_the_supervisor(models: Path, tmp_path: Path) -> None:
    settings = settings_of(models, tmp_path)
    before = fingerprint(settings)
    os.utime(models / KEY / FILE, ns=(1, 1))
    assert fingerprint(settings) != before


def test_a_file_that_fails_its_own_test_never_gets_onto_the_card(models: Path) -> None:
    from training.optimize.writing import adopt

    directory = models / KEY
    before = {name: (directory / name).read_bytes() for name in (CARD, PAGE, FILE)}
    content = read_openvino_file(directory / FILE)
    with pytest.raises(SelfTestError):
        adopt(directory, replace(content, golden=1 - content.golden), "fp32")
    assert {name: (directory / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("name", ["network.xml", "another.xml"])
def test_an_archive_of_other_members_is_no_converted_file(tmp_path: Path, name: str) -> None:
    import zipfile

    path = tmp_path / "openvino_fp32.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(PackageError, match="other members"):
        read_openvino_file(path)
