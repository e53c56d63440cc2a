"""The declarative base and its naming convention."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import MetaData, Text
from sqlalchemy.orm import DeclarativeBase

from firstread.records.types import JsonText, UtcDateTime


class Base(DeclarativeBase):
    """Every table hangs on this metadata; constraints have names, so that migrations can drop them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime,
        str: Text,
        list[str]: JsonText,
        list[dict[str, Any]]: JsonText,
        dict[str, Any]: JsonText,
        dict[str, float]: JsonText,
    }
