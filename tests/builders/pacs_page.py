"""What ``docs/pacs.md`` shows, taken from the page itself and moved to this machine's addresses and ports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.builders.programs import DICOMWEB_PLUGIN

PAGE = Path(__file__).resolve().parents[2] / "docs/pacs.md"
FIRSTREAD_HOST = "firstread.hospital.example"
PACS_HOST = "orthanc.hospital.example"


def block(language: str) -> str:
    """The one block of the page in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


def orthanc_of_page(folder: Path, *, firstread_port: int) -> dict[str, Any]:
    """The configuration of Orthanc, its rule written into a folder; without the plug-in where that is not installed."""
    config: dict[str, Any] = json.loads(block("json"))
    ((name, (ae_title, host, _)),) = config["DicomModalities"].items()
    assert host == FIRSTREAD_HOST
    (script,) = config["LuaScripts"]
    rule = folder / Path(script).name
    rule.write_text(block("lua"), encoding="utf-8")
    return config | {
        "DicomModalities": {name: [ae_title, "127.0.0.1", firstread_port]},
        "LuaScripts": [str(rule)],
        "Plugins": [plugin for plugin in config["Plugins"] if DICOMWEB_PLUGIN.is_file()],
    }


def destination_of_page(pacs_port: int) -> str:
    """The part of ``destinations.toml``."""
    config = json.loads(block("json"))
    text = block("toml")
    moved = text.replace(PACS_HOST, "127.0.0.1").replace(f"port = {config['DicomPort']}\n", f"port = {pacs_port}\n")
    assert moved.count("127.0.0.1") == moved.count(f"port = {pacs_port}\n") == 1
    return moved


def calls_of_page(pacs_url: str) -> list[str]:
    """The lines that call Orthanc by ``curl``."""
    lines = re.findall(rf"^curl .*http://{PACS_HOST}:8042/.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.replace(f"http://{PACS_HOST}:8042", pacs_url) for line in lines]


def series_of_page() -> set[tuple[str, str, str]]:
    """Series Number, Modality and Series Description of what comes back, of a head."""
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (.+?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {(number, modality, description) for number, modality, description in rows}
