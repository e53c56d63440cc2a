"""Folders of pipelines that only tests know, as they would stand in ``worker/pipelines/``."""
