"""The card of a package, as its authors wrote it."""

from __future__ import annotations

import re

from starlette.responses import Response

from firstread.settings import default_models_dir
from firstread_web.site import Visit

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


def show_card(visit: Visit) -> Response:
    """The text of ``card.md`` of one version of a package."""
    name, version = visit.request.path_params["name"], visit.request.path_params["version"]
    folders = (visit.settings.models_dir, visit.settings.home / "models", default_models_dir())
    text = None
    if NAME.fullmatch(name) and NAME.fullmatch(version):
        paths = (folder / name / version / "card.md" for folder in folders)
        path = next((path for path in paths if path.is_file()), None)
        text = None if path is None else path.read_text(encoding="utf-8", errors="replace")
    if text is None:
        return visit.show("message", 404, message="There is no card of that package here.")
    return visit.show("card", name=name, version=version, text=text)
