"""How URLs are shown, and what is kept out of texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from firstread.settings import Settings
from firstread.settings.secrets import secrets_of, shown_url, without


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:geheim@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:ge%40heim@h/d?sslmode=verify-full", "postgresql://u:***@h/d?sslmode=verify-full"),
        ("postgresql://u@h/d?password=geheim&x=1", "postgresql://u@h/d?password=***&x=1"),
        ("postgresql:///d?host=/run&user=u&sslpassword=geheim", "postgresql:///d?host=/run&user=u&sslpassword=***"),
        ("redis://:geheim@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://:ge?he@im@h:6379/0", "redis://:***@h:6379/0"),
        ("rediss://h:6379/0?ssl_ca_certs=/a.pem", "rediss://h:6379/0?ssl_ca_certs=/a.pem"),
        ("sftp://u:geheim@h/images", "sftp://u:***@h/images"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("sqlite:////home/a:b@c/firstread.sqlite", "sqlite:////home/a:b@c/firstread.sqlite"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_is_secret_in_it(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_every_secret_of_a_site_is_known_and_kept_out_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("from-a-file\n")
    (tmp_path / "destinations.toml").write_text(
        f"""
[[destination]]
name = "hook"
kind = "webhook"
url = "https://h/"
secret = {{ file = "{tmp_path / "hook"}" }}
[[destination]]
name = "mail"
kind = "email"
password = {{ env = "MAIL_WORD" }}
"""
    )
    settings = Settings(
        home=tmp_path,
        database_url="postgresql://u:da%40ta@h/d?sslpassword=key-word",
        broker_url="redis://:brok-er@h:1/0",
        store_url="sftp://u:sto-re@h/i",
        heartbeat_url=SecretStr("https://h/ping/secret-path"),
        stow_token=SecretStr("a-token-of-stow-rs"),
    )
    secrets = secrets_of(settings, {"MAIL_WORD": "from-a-name", "AWS_SECRET_ACCESS_KEY": "from-aws", "OTHER": "other"})
    assert secrets == {
        *("da%40ta", "da@ta", "key-word", "brok-er", "sto-re", "https://h/ping/secret-path"),
        *("from-a-file", "from-a-name", "from-aws", "a-token-of-stow-rs"),
    }
    text = without(secrets, f"before {' and '.join(sorted(secrets))} behind")
    assert not [secret for secret in secrets if secret in text]
    assert text.startswith("before *** and") and text.endswith(" behind")


def test_settings_show_no_secret_however_they_are_printed(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        database_url="postgresql://u@h/d?password=geheim",
        broker_url="redis://:geheim@h:1/0",
        store_url="sftp://u:geheim@h/i",
        heartbeat_url=SecretStr("https://h/geheim"),
        stow_token=SecretStr("geheim-geheim-geheim"),
    )
    assert "geheim" not in repr(settings) + str(settings) + repr(settings.printable())
    with pytest.raises(ValueError) as error:
        Settings(home=tmp_path, database_url="mysql://u:geheim@h/d")
    assert "geheim" not in str(error.value) + repr(error.value)
