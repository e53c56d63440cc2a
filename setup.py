"""Puts ``demo/``, ``migrations/`` and ``models/`` into a wheel as data of ``firstread``; the rest is in pyproject."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    """``build_py`` that also copies the shipped data to ``firstread/_data``, where the settings look for it."""

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):
            return
        for name in ("demo", "migrations", "models"):
            source = Path(__file__).resolve().parent / name
            target = Path(self.build_lib) / "firstread" / "_data" / name
            if source.is_dir():
                shutil.copytree(
                    source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
                )


setup(cmdclass={"build_py": BuildWithData})
