"""Packages: written, loaded, checked, folded, exported, with a network of a few thousand weights."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from firstread.actions.audit import current_user
from firstread.records import AuditEvent, Database
from firstread.records.migrate import SchemaMismatch, downgrade, upgrade
from firstread.settings import Settings
from training.package.writing import golden_pixels, rewrite_card, write_package
from worker.engine.loading import fingerprint, load_serving
from worker.packages.archive import export_package, import_package
from worker.packages.card import Calibration, Card, ChecksumError, InputSpec, PackageError, SelfTestError
from worker.packages.networks import build
from worker.packages.operating_points import OperatingPoint
from worker.packages.package import CARD, GOLDEN, WEIGHTS, load
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.folding import fold
from worker.packages.store import PackageStore, open_store

SPEC = InputSpec(kind="hu", height=32, width=32, windows=((0, 80),), neighbours=1, crop="head", scale="imagenet_lite")
LABELS = ["any", "subdural"]


def toy_card(version: str = "1.0.0", **changes: Any) -> Card:
    values: dict[str, Any] = {
        "name": "toy",
        "version": version,
        "pipeline": "head_ct",
        "task": "bleed",
        "labels": LABELS,
        "input": SPEC,
        "architecture": {"builder": "tiny_unet", "classes": 2, "width": 4},
        "calibration": Calibration(temperature={"any": 2.0}, bias={"any": 0.5}),
        "operating_points": {"flag": OperatingPoint(finding="any", threshold=0.4, chosen_for="a test")},
        "metrics": {"patient": {"auc": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 12}}},
        "limits": ["knows nothing"],
    }
    return Card.model_validate({**values, **changes})


def toy_model() -> Any:
    """A toy network whose norms are not at their start, so that folding has something to fold."""
    import keras

    keras.utils.set_random_seed(3)
    model = build.build({"builder": "tiny_unet", "classes": 2, "width": 4}, SPEC)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_package(root / "toy" / "1.0.0", toy_model(), toy_card(), "Apache-2.0")
    return root


def copy_of(shipped: Path, target: Path) -> Path:
    """A writable copy of the toy package."""
    import shutil

    return Path(shutil.copytree(shipped / "toy" / "1.0.0", target / "toy" / "1.0.0"))


def test_loads_and_gives_calibrated_probabilities_for_any_number_of_rows(shipped: Path) -> None:
    package = load(shipped / "toy" / "1.0.0")
    package.warm_up()
    x = compose(golden_pixels(SPEC), SPEC)
    one_by_one = np.concatenate([package.predict(x[i : i + 1])["p"] for i in range(3)])
    many = package.predict(np.concatenate([x] * 15))
    assert many["p"].shape == (45, 2)
    assert many["mask"].shape == (45, 16, 16)
    np.testing.assert_allclose(many["p"][:3], one_by_one, atol=1e-5)
    raw = many["p_raw"][:, 0].astype(np.float64)
    expected = 1 / (1 + np.exp(-((np.log(raw / (1 - raw)) - 0.5) / 2.0)))
    np.testing.assert_allclose(many["p"][:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(many["p"][:, 1], many["p_raw"][:, 1])


def test_mirrored_picture_gives_the_same_score_with_flip(tmp_path: Path) -> None:
    package = write_package(tmp_path / "toy" / "1", toy_model(), toy_card(parameters={"flip": True}), "x")
    x = compose(golden_pixels(SPEC), SPEC)
    np.testing.assert_allclose(package.predict(x)["p"], package.predict(x[:, :, ::-1])["p"], atol=1e-5)


def test_folded_network_is_the_same_function() -> None:
    model = toy_model()
    folded = fold(model)
    x = np.random.default_rng(1).normal(size=(4, 32, 32, 3)).astype(np.float32)
    before, after = model(x, training=False), folded(x, training=False)
    for name in ("logits", "mask_logits"):
        np.testing.assert_allclose(np.asarray(before[name]), np.asarray(after[name]), rtol=1e-3, atol=1e-4)
    assert not any(type(layer).__name__ == "BatchNormalization" for layer in folded.layers)


def test_heat_map_points_where_the_network_looks(shipped: Path) -> None:
    package = load(shipped / "toy" / "1.0.0")
    maps = package.gradients(compose(golden_pixels(SPEC), SPEC), "any")
    assert maps.shape == (3, 4, 4)
    assert maps.min() >= 0.0 and maps.max() <= 1.0
    with pytest.raises(PackageError, match="no finding"):
        package.gradients(np.zeros((1, 32, 32, 3), np.float32), "elsewhere")


def test_heat_maps_are_traced_once_and_follow_the_slopes(shipped: Path) -> None:
    package = load(shipped / "toy" / "1.0.0")
    package.warm_up()
    x = compose(golden_pixels(SPEC), SPEC)
    assert package._slopes is not None
    for finding, column in (("any", 0), ("subdural", 1)):
        maps, slopes = package.slopes(x, finding)
        kernel = np.asarray(package.model.get_layer("logits").kernel)[: maps.shape[-1], column]
        pixels = maps.shape[1] * maps.shape[2]
        np.testing.assert_allclose(slopes.mean(axis=(0, 1, 2)), kernel / pixels, rtol=1e-3, atol=1e-7)
        package.gradients(x[:1], finding)
    assert package._slopes.experimental_get_tracing_count() == 1  # type: ignore[attr-defined]


def test_damaged_weights_do_not_serve(shipped: Path, tmp_path: Path) -> None:
    directory = copy_of(shipped, tmp_path)
    data = bytearray((directory / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / WEIGHTS).write_bytes(bytes(data))
    with pytest.raises(ChecksumError):
        load(directory)


def test_changed_calibration_fails_the_self_test(shipped: Path, tmp_path: Path) -> None:
    directory = copy_of(shipped, tmp_path)
    card = json.loads((directory / CARD).read_text())
    card["calibration"]["bias"]["any"] = 3.0
    card["decisions_sha256"] = ""
    (directory / CARD).write_text(json.dumps(card))
    with pytest.raises(SelfTestError, match="differ"):
        load(directory)
    (directory / GOLDEN).unlink()
    with pytest.raises(SelfTestError, match="no readable"):
        load(directory)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("operating_points", {"flag": {"finding": "any", "threshold": 0.999, "chosen_for": "a test"}}),
        (
            "parameters",
            {"evidence": {"neighbour": 0.0, "top": 4, "weights": {"any": {"own": 1, "mask": 1, "bias": -20}}}},
        ),
    ],
)
def test_what_decides_about_a_flag_cannot_be_changed_on_the_card(
    shipped: Path, tmp_path: Path, part: str, change: dict[str, Any]
) -> None:
    directory = copy_of(shipped, tmp_path)
    card = json.loads((directory / CARD).read_text())
    (directory / CARD).write_text(json.dumps({**card, "limits": ["knows little"]}))
    load(directory)
    (directory / CARD).write_text(json.dumps({**card, part: change}))
    with pytest.raises(ChecksumError, match="were changed"):
        load(directory)
    (directory / CARD).write_text(json.dumps({**card, part: change, "decisions_sha256": ""}))
    load(directory)
    rewrite_card(directory, Card.read(directory / CARD))
    assert load(directory).card.decisions_sha256 not in ("", card["decisions_sha256"])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"architecture": {"builder": "from_the_future", "classes": 2}}, "from_the_future"),
        ({"architecture": {"builder": "tiny_unet", "classes": 3, "width": 4}}, "has no"),
        ({"input": SPEC.model_copy(update={"preprocessing_version": 99})}, "preprocessing 99"),
    ],
)
def test_card_for_another_version_of_the_code(
    shipped: Path, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    directory = copy_of(shipped, tmp_path)
    sha256 = json.loads((directory / CARD).read_text())["sha256"]
    toy_card(sha256=sha256, **changes).write(directory / CARD)
    with pytest.raises(PackageError, match=text):
        load(directory)


def test_newest_of_a_task_is_active_until_somebody_decides(shipped: Path, tmp_path: Path) -> None:
    for version in ("1.9.0", "1.10.0"):
        (tmp_path / "toy" / version).mkdir(parents=True)
        toy_card(version).write(tmp_path / "toy" / version / CARD)
    store = PackageStore([tmp_path, shipped], tmp_path / "home")
    assert {e.version: e.role for e in store.entries()} == {"1.10.0": "active", "1.9.0": "off", "1.0.0": "off"}
    store.activate("toy/1.9.0")
    store.activate("toy/1.10.0", "shadow")
    assert [(e.version, e.role) for e in store.serving()] == [("1.9.0", "active"), ("1.10.0", "shadow")]
    (tmp_path / "toy" / "2.0.0").mkdir()
    toy_card("2.0.0").write(tmp_path / "toy" / "2.0.0" / CARD)
    assert store.entry("toy/2.0.0").role == "off"
    (tmp_path / "toy" / "2.0.0" / CARD).write_text("{}")
    assert "no valid card" in store.entry("toy/2.0.0").error
    with pytest.raises(PackageError, match="no package"):
        store.activate("toy/3")


def test_package_travels_as_one_file(shipped: Path, tmp_path: Path) -> None:
    archive = export_package(shipped / "toy" / "1.0.0", tmp_path)
    directory = import_package(archive, tmp_path / "there")
    assert directory == tmp_path / "there" / "toy" / "1.0.0"
    assert load(directory).key == "toy/1.0.0"
    with pytest.raises(PackageError, match="there already"):
        import_package(archive, tmp_path / "there")
    assert not list((tmp_path / "there").glob(".import-*"))


def broken_archive(shipped: Path, tmp_path: Path) -> Path:
    """Version 1.1.0, whose golden outputs are of another network; checksums agree."""
    directory = copy_of(shipped, tmp_path / "broken")
    card = Card.read(directory / CARD).model_copy(update={"version": "1.1.0"})
    card.write(directory / CARD)
    with np.load(directory / GOLDEN) as golden:
        pixels, p = golden["pixels"], golden["p"]
    np.savez_compressed(directory / GOLDEN, pixels=pixels, p=p[::-1] + 0.1)
    return export_package(directory, tmp_path)


def test_a_package_that_fails_its_self_test_is_not_taken_in(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from firstread_cli.models import models

    archive = broken_archive(shipped, tmp_path)
    with pytest.raises(SelfTestError):
        import_package(archive, tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())
    monkeypatch.setenv("FIRSTREAD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTREAD_MODELS_DIR", str(shipped))
    assert CliRunner().invoke(models, ["import", str(archive), "--activate"]).exit_code == 1
    (entry,) = open_store(Settings()).entries()
    assert (entry.key, entry.role) == ("toy/1.0.0", "active")


def test_a_baseline_is_never_active(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "slices" / "1.0.0").mkdir(parents=True)
    toy_card(name="slices", task="bleed_slice").write(tmp_path / "slices" / "1.0.0" / CARD)
    store = PackageStore([tmp_path, shipped], tmp_path / "home")
    assert {e.key: e.role for e in store.entries()} == {"slices/1.0.0": "off", "toy/1.0.0": "active"}
    with pytest.raises(PackageError, match="baseline"):
        store.activate("slices")
    store.activate("slices", "shadow")
    assert [(e.key, e.role) for e in store.serving()] == [("toy/1.0.0", "active"), ("slices/1.0.0", "shadow")]
    store.state_path.write_text(json.dumps({"roles": {"slices/1.0.0": "active"}}))
    assert [(e.key, e.role) for e in store.serving()] == [("toy/1.0.0", "active")]


def test_the_only_active_package_cannot_become_a_shadow(shipped: Path, tmp_path: Path) -> None:
    store = PackageStore([tmp_path, shipped], tmp_path / "home")
    with pytest.raises(PackageError, match="only active"):
        store.activate("toy/1.0.0", "shadow")
    assert store.entry("toy").role == "active"
    (tmp_path / "toy" / "2.0.0").mkdir(parents=True)
    toy_card("2.0.0").write(tmp_path / "toy" / "2.0.0" / CARD)
    store.activate("toy/1.0.0")
    assert store.entry("toy").version == "1.0.0", "the name alone means what serves"
    store.activate("toy/2.0.0")
    store.activate("toy/1.0.0", "shadow")
    assert [(e.version, e.role) for e in store.serving()] == [("2.0.0", "active"), ("1.0.0", "shadow")]
    assert store.activate("toy/2.0.0", "off").role == "off"


def test_strange_archives_are_refused(shipped: Path, tmp_path: Path) -> None:
    good = export_package(shipped / "toy" / "1.0.0", tmp_path)
    for name, content in (("../../evil", b"x"), (CARD, b"{}")):
        bad = tmp_path / "bad.zip"
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
            for member in source.namelist():
                if member != name:
                    target.writestr(member, source.read(member))
            target.writestr(name, content)
        with pytest.raises(PackageError):
            import_package(bad, tmp_path / "there")
    (tmp_path / "no.zip").write_bytes(b"PK")
    with pytest.raises(PackageError, match="cannot read"):
        import_package(tmp_path / "no.zip", tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


def test_an_imported_package_serves(shipped: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", models_dir=shipped)
    before = fingerprint(settings)
    directory = copy_of(shipped, tmp_path / "home" / "models")
    card = toy_card("1.1.0", sha256=json.loads((directory / CARD).read_text())["sha256"])
    card.write(directory / CARD)
    directory.rename(directory.with_name("1.1.0"))
    assert fingerprint(settings) != before
    open_store(settings).activate("toy/1.1.0")
    serving = load_serving(settings)
    assert [served.key for served in serving.of("head_ct")["bleed"]] == ["toy/1.1.0"]
    assert not serving.refused


def test_who_activated_what_stands_in_the_audit_trail(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from firstread_cli.models import models

    monkeypatch.setenv("FIRSTREAD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTREAD_MODELS_DIR", str(shipped))
    db = Database(f"sqlite:///{tmp_path / 'home' / 'firstread.sqlite'}")
    upgrade(db)
    archive = export_package(shipped / "toy" / "1.0.0", tmp_path)
    for *arguments, code in (
        ("activate", "toy/1.0.0", "--shadow", 1),
        ("activate", "toy/1.0.0", "--off", 0),
        ("activate", "toy/9", 1),
        ("activate", "toy", 0),
        ("activate", "toy/1.0.0", "--off", 0),
        ("import", str(archive), "--activate", 0),
    ):
        assert CliRunner().invoke(models, arguments).exit_code == code, arguments
    with db.read() as session:
        events = session.scalars(select(AuditEvent).order_by(AuditEvent.id)).all()
    assert {(event.subject, event.actor) for event in events} == {("package/toy/1.0.0", current_user())}
    assert [(e.action, e.detail["before"], e.detail["role"]) for e in events] == [
        ("models.activate", "active", "off"),
        ("models.activate", "off", "active"),
        ("models.activate", "active", "off"),
        ("models.import", None, "active"),
    ]
    downgrade(db, "0001")
    behind = CliRunner().invoke(models, ["activate", "toy/1.0.0"])
    assert isinstance(behind.exception, SchemaMismatch)
    assert PackageStore([shipped], tmp_path / "home").entry("toy").role == "active", (
        "nothing is done that is not recorded"
    )
    db.dispose()


def test_models_commands(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from firstread_cli.models import models

    monkeypatch.setenv("FIRSTREAD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTREAD_MODELS_DIR", str(shipped))

    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(models, list(arguments))
        return done.exit_code, done.output

    code, text = call("list", "--json")
    assert code == 0
    assert [(row["key"], row["role"]) for row in json.loads(text)] == [("toy/1.0.0", "active")]
    code, text = call("show", "toy")
    assert code == 0 and "0.9 (95 % CI 0.8 to 1, N 12)" in text and "knows nothing" in text
    assert call("verify")[0] == 0
    code, text = call("export", "toy", str(tmp_path))
    archive = Path(text.strip())
    assert code == 0 and archive.is_file()
    assert call("import", str(archive))[0] == 0
    assert (tmp_path / "home" / "models" / "toy" / "1.0.0" / CARD).is_file()
    assert call("import", str(archive))[0] != 0
    code, text = call("activate", "toy/1.0.0", "--off")
    assert code == 0 and text.split()[0] == "off"
    code, text = call("activate", "toy/2")
    assert code != 0 and "no package" in text
    (tmp_path / "home" / "models" / "toy" / "1.0.0" / WEIGHTS).write_bytes(b"x")
    code, text = call("verify", "toy/1.0.0")
    assert code != 0 and "FAILED" in text
