"""Digests of result objects of fixed results, for the versions of their templates.

``python -m tests.builders.templates`` records them; the version must have been raised where a digest changes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import dcmread

from firstread.records import Database
from firstread.settings import Settings
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in
from worker.outputs.objects import capture, finishing, report, segmentation
from worker.outputs.objects.files import ensure_objects

RECORD = Path(__file__).parents[1] / "data/templates.json"
VERSIONS = {"sr": report, "seg": segmentation, "sc": capture}
PIPELINES = ("head_ct", "chest_xray", "dermoscopy")


def template_digests(
    site: tuple[Settings, Database], pipeline: str, replace: Callable[[Any, str, Any], None]
) -> dict[str, str]:
    """Digest by ``pipeline kind version``. What comes from this program's and the libraries' own versions is left out.

    Parameters
    ----------
    replace : callable
        Puts a value in the place of an attribute, such as ``monkeypatch.setattr``.
    """
    replace(finishing, "software_version", lambda: "0")
    replace(report, "software_version", lambda: "0")
    scored = scored_study(site[1], site[0], pipeline=pipeline, n=4 if pipeline == "head_ct" else 1)
    digests = {}
    for row in ensure_objects(site[1], site[0], scored.job_id):
        if row.path is None:
            continue
        ds = dcmread(site[0].objects_dir / row.path)
        for keyword in ("ContributingEquipmentSequence", "SOPInstanceUID", "SeriesInstanceUID"):
            if keyword in ds:
                del ds[keyword]
        text = "\n".join(str(element) for element in ds if element.keyword != "PixelData")
        digest = hashlib.sha256(text.encode() + ds.get("PixelData", b"")).hexdigest()
        digests[f"{pipeline} {row.kind} {VERSIONS[row.kind].TEMPLATE_VERSION}"] = digest
    return digests


def main() -> int:
    """Write the record anew; refuses where a digest changed under the same version."""
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    digests: dict[str, str] = {}
    for pipeline in PIPELINES:
        with tempfile.TemporaryDirectory() as folder:
            settings = settings_in(Path(folder), time_zone="Europe/Berlin")
            digests |= template_digests((settings, database_in(settings)), pipeline, setattr)
    changed = sorted(key for key in digests if known.get(key, digests[key]) != digests[key])
    if changed and "--same-version" not in sys.argv:
        print("raise TEMPLATE_VERSION first: " + ", ".join(changed))
        return 1
    RECORD.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
