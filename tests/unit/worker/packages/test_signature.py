"""Signed packages: by which key, over which files, and what serves where a signature is demanded."""

from __future__ import annotations

import base64
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from firstread.settings import Settings
from firstread_cli.models import models
from firstread_cli.services import warn_of_keys
from tests.builders.toy_package import write_toy_package
from worker.packages.archive import export_package, import_package, sign_archive
from worker.packages.card import ChecksumError, PackageError
from worker.packages.manifest import MANIFEST, MANIFEST_BYTES, SIGNATURE, SIGNATURE_BYTES
from worker.packages.signature import (
    SignatureError,
    is_encrypted,
    make_key,
    read_private_key,
    read_public_keys,
    require_signature,
    sign_folder,
    signed_by,
    verify_signature,
)

LABEL = "toy/1.0.0"
Change = Callable[[Path], object]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A private key; its public one lies beside it."""
    make_key(tmp_path / "author.key")
    return tmp_path / "author.key"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with files such as a package has; nothing here loads it."""
    folder = tmp_path / "models" / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    for name in ("card.json", "weights.npz", "golden.npz", "LICENSE", "card.md", "openvino_int8.zip"):
        (folder / name).write_bytes(f"content of {name}".encode() * 50)
    return folder


def public(key_file: Path) -> Path:
    return key_file.with_name(f"{key_file.name}.pub")


def test_a_signature_covers_every_file_of_the_package(package: Path, key_file: Path) -> None:
    name = sign_folder(package, read_private_key(key_file))
    assert verify_signature(package, read_public_keys(public(key_file)), LABEL) == name == signed_by(package)
    listed = json.loads((package / MANIFEST).read_bytes())["sha256"]
    assert set(listed) == {path.name for path in package.iterdir()} - {MANIFEST, SIGNATURE}
    assert require_signature(package, public(key_file)) == name
    assert require_signature(package, None) == "", "nothing is asked for where no keys are set"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: (p / SIGNATURE).unlink(), "not signed"),
        (lambda p: (p / "weights.npz").write_bytes(b"others"), "'weights.npz' is not the file"),
        (lambda p: (p / "card.json").write_text("{}"), "'card.json' is not the file"),
        (lambda p: (p / "openvino_int8.zip").write_bytes(b""), "'openvino_int8.zip' is not the file"),
        (lambda p: (p / "LICENSE").unlink(), "'LICENSE' of the manifest is missing"),
        (lambda p: (p / "openvino_fp16.zip").write_bytes(b"x"), "'openvino_fp16.zip' is not in the manifest"),
        (lambda p: (p / "sub").mkdir() or (p / "sub" / "x").touch(), "'sub/x' is not in the manifest"),
        (lambda p: (p / MANIFEST).unlink(), "manifest.json cannot be read"),
        (lambda p: (p / MANIFEST).write_bytes((p / MANIFEST).read_bytes() + b" "), "is not of this manifest.json"),
        (lambda p: (p / MANIFEST).write_bytes(b" " * (MANIFEST_BYTES + 1)), "manifest.json is larger than 64 KiB"),
        (lambda p: (p / SIGNATURE).write_bytes(b" " * (SIGNATURE_BYTES + 1)), "signature.json is larger than 4 KiB"),
        (lambda p: (p / SIGNATURE).write_bytes(b"\xff" * 40), "holds no signature"),
        (lambda p: (p / SIGNATURE).write_text("[" * 4000), "holds no signature"),
    ],
)
def test_what_was_changed_is_refused_in_one_line(package: Path, key_file: Path, change: Change, words: str) -> None:
    sign_folder(package, read_private_key(key_file))
    change(package)
    with pytest.raises(SignatureError, match=words) as error:
        require_signature(package, public(key_file))
    assert str(error.value).startswith(f"{LABEL}: ") and "\n" not in str(error.value)


def test_a_link_is_no_file_of_a_package(package: Path, key_file: Path, tmp_path: Path) -> None:
    sign_folder(package, read_private_key(key_file))
    shutil.move(package / "weights.npz", tmp_path / "elsewhere")
    (package / "weights.npz").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SignatureError, match=r"weights\.npz"):
        require_signature(package, public(key_file))


def test_another_key_is_named_and_refused(package: Path, key_file: Path, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger.key")
    sign_folder(package, read_private_key(tmp_path / "stranger.key"))
    with pytest.raises(SignatureError, match=f"signed by key {stranger}, which is not trusted here"):
        require_signature(package, public(key_file))
    both = tmp_path / "both.pem"
    both.write_bytes(b"the author\n" + public(key_file).read_bytes() + (tmp_path / "stranger.key.pub").read_bytes())
    assert require_signature(package, both) == stranger


def test_a_signature_under_the_name_of_a_trusted_key_does_not_hold(
    package: Path, key_file: Path, tmp_path: Path
) -> None:
    make_key(tmp_path / "stranger.key")
    trusted = sign_folder(package, read_private_key(key_file))
    sign_folder(package, read_private_key(tmp_path / "stranger.key"))
    forged = json.loads((package / SIGNATURE).read_bytes()) | {"key": trusted}
    (package / SIGNATURE).write_text(json.dumps(forged))
    with pytest.raises(SignatureError, match="is not of this manifest"):
        require_signature(package, public(key_file))
    for signature in ("", "no base 64", base64.b64encode(bytes(64)).decode(), "A" * 101):
        (package / SIGNATURE).write_text(json.dumps(forged | {"signature": signature}))
        with pytest.raises(SignatureError):
            require_signature(package, public(key_file))


def test_a_signature_of_the_bare_manifest_is_none(package: Path, key_file: Path) -> None:
    """The same key may sign other things; what it signed here begins with what it is about."""
    key = read_private_key(key_file)
    sign_folder(package, key)
    bare = base64.b64encode(key.sign((package / MANIFEST).read_bytes())).decode()
    content = json.loads((package / SIGNATURE).read_bytes()) | {"signature": bare}
    (package / SIGNATURE).write_text(json.dumps(content))
    with pytest.raises(SignatureError, match="is not of this manifest"):
        require_signature(package, public(key_file))


def test_keys_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "author.key"
    name = make_key(path, passphrase="open sesame")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(read_public_keys(public(path))) == [name]
    with pytest.raises(SignatureError, match="File exists"):
        make_key(path)
    assert is_encrypted(path)
    assert read_private_key(path, "open sesame").public_key().public_bytes_raw()
    for passphrase in ("", "closed"):
        with pytest.raises(SignatureError, match="no private key that this passphrase opens"):
            read_private_key(path, passphrase)


def test_files_that_hold_no_keys(tmp_path: Path, key_file: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    other = ec.generate_private_key(ec.SECP256R1())
    contents = {
        "none": b"",
        "private": key_file.read_bytes(),
        "curve": other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "many": public(key_file).read_bytes() * 65,
        "large": b" " * (256 * 1024 + 1),
        "broken": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SignatureError, match=f"{tmp_path / name}"):
            read_public_keys(tmp_path / name)
    with pytest.raises(SignatureError, match="No such file"):
        read_public_keys(tmp_path / "nowhere")
    (tmp_path / "ec.key").write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SignatureError, match="another kind"):
        read_private_key(tmp_path / "ec.key")


def test_keys_that_cannot_be_read_are_one_line_at_the_start(
    tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_keys(Settings(home=tmp_path, model_keys=public(key_file)))
    warn_of_keys(Settings(home=tmp_path))
    assert capsys.readouterr().err == ""
    warn_of_keys(Settings(home=tmp_path, model_keys=tmp_path / "nowhere"))
    assert capsys.readouterr().err == (
        f"firstread: FIRSTREAD_MODEL_KEYS: {tmp_path}/nowhere cannot be read (No such file or directory); "
        "no package serves\n"
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one real package."""
    folder = tmp_path_factory.mktemp("models")
    write_toy_package(folder)
    return folder


def test_a_package_takes_its_signature_along(toy: Path, key_file: Path, tmp_path: Path) -> None:
    keys = read_public_keys(public(key_file))
    file = export_package(toy / LABEL, tmp_path)
    with pytest.raises(SignatureError, match="not signed"):
        import_package(file, tmp_path / "home", keys=keys)
    name = sign_archive(file, read_private_key(key_file))
    taken = import_package(file, tmp_path / "home", keys=keys)
    assert verify_signature(taken, keys, LABEL) == name
    again = export_package(taken, tmp_path / "again.zip")
    assert signed_by(import_package(again, tmp_path / "third")) == name
    (taken / "card.md").write_text("changed")
    with pytest.raises(ChecksumError, match=r"card\.md"):
        export_package(taken, tmp_path / "fourth.zip")
    with zipfile.ZipFile(again, "a") as archive:
        archive.writestr("../signature.json", "{}")
    with pytest.raises(PackageError, match="no model package"):
        import_package(again, tmp_path / "fifth")
    large = export_package(toy / LABEL, tmp_path / "large.zip")
    with zipfile.ZipFile(large, "a") as archive:
        archive.writestr(SIGNATURE, " " * (SIGNATURE_BYTES + 1))
    with pytest.raises(PackageError, match=r"signature\.json is larger than 4 KiB"):
        import_package(large, tmp_path / "fifth")


def test_where_a_signature_is_demanded_nothing_else_serves(
    toy: Path, key_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from firstread_cli.doctor.command import check_models
    from worker.engine.loading import fingerprint, load_serving
    from worker.metrics import MODEL_INFO

    folder = Path(shutil.copytree(toy, tmp_path / "models"))
    settings = Settings(home=tmp_path / "home", models_dir=folder, model_keys=public(key_file))
    before = fingerprint(settings)
    serving = load_serving(settings)
    assert not serving.models and [(r.key, r.task, r.reason) for r in serving.refused] == [
        (LABEL, "bleed", "signature")
    ]
    assert MODEL_INFO.labels("head_ct", LABEL, "refused", "signature")._value.get() == 1
    assert f"{LABEL}: not signed: signature.json is missing" in caplog.text
    (check,) = check_models(settings)
    assert (check.status, check.detail) == ("fail", f"{LABEL}: not signed: signature.json is missing")

    name = sign_folder(folder / LABEL, read_private_key(key_file))
    assert fingerprint(settings) != before, "workers look at the packages anew"
    assert list(load_serving(settings).models) == [LABEL]
    (check,) = check_models(settings)
    assert check.status == "ok" and f"signed by key {name}" in check.detail

    gone = settings.model_copy(update={"model_keys": tmp_path / "nowhere"})
    assert [r.reason for r in load_serving(gone).refused] == ["signature"], "no keys: nothing is trusted"
    (check,) = check_models(gone)
    assert check.status == "fail" and "nowhere cannot be read" in check.detail


def test_the_commands(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(toy, tmp_path / "models"))
    monkeypatch.setenv("FIRSTREAD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTREAD_MODELS_DIR", str(folder))
    key, run = tmp_path / "site.key", CliRunner().invoke
    made = run(models, ["make-key", str(key), "--passphrase"], input="geheim\ngeheim\n")
    assert made.exit_code == 0 and "geheim" not in made.output
    wrong = run(models, ["sign", "toy", "--key", str(key)], input="falsch\n")
    assert wrong.exit_code == 1 and "no private key that this passphrase opens" in wrong.output
    asked = ["verify", "toy", "--keys", str(public(key))]
    assert run(models, asked).exit_code == 1
    signed = run(models, ["sign", "toy", "--key", str(key)], input="geheim\n")
    assert signed.exit_code == 0 and "is signed by key" in signed.output
    verified = run(models, asked)
    assert verified.exit_code == 0 and f"ok      {LABEL}  signed by key" in verified.output
    file = export_package(folder / LABEL, tmp_path)
    shutil.rmtree(folder / LABEL)
    monkeypatch.setenv("FIRSTREAD_MODEL_KEYS", str(public(key)))
    taken = run(models, ["import", str(file)])
    assert taken.exit_code == 0, taken.output
    unsigned = run(models, ["import", str(export_package(toy / LABEL, tmp_path / "other.zip"))])
    assert unsigned.exit_code == 1 and "not signed" in unsigned.output
