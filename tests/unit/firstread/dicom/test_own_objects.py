"""Which objects are a Firstread's own results, and which only look like it."""

from __future__ import annotations

import pytest

from firstread.dicom.files import header_of
from firstread.dicom.own_objects import MANUFACTURER, MODEL, RESULT_CLASSES, is_result_object
from tests.builders.listening import small_series

SC, KEY_OBJECTS, CT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.2"


def is_own(sop_class: str, manufacturer: str, model: str) -> bool:
    (ds,) = small_series(1)
    ds.SOPClassUID, ds.Manufacturer, ds.ManufacturerModelName = sop_class, manufacturer, model
    return is_result_object(header_of(ds, ds.file_meta))


@pytest.mark.parametrize("sop_class", sorted(RESULT_CLASSES))
def test_class_and_equipment_together_are_the_sign(sop_class: str) -> None:
    assert is_own(sop_class, MANUFACTURER, MODEL)
    assert is_own(sop_class, MANUFACTURER + " ", MODEL + " "), "padding is no part of a value"


@pytest.mark.parametrize(
    ("sop_class", "manufacturer", "model"),
    [
        (CT, MANUFACTURER, MODEL),
        (KEY_OBJECTS, MANUFACTURER, MODEL),
        (SC, "Firstread phantom", "formula"),
        (SC, "firstread", MODEL),
        (SC, MANUFACTURER, "Viewer"),
        (SC, MANUFACTURER, ""),
        (SC, "ACME", MODEL),
    ],
)
def test_what_only_resembles_a_result_is_none(sop_class: str, manufacturer: str, model: str) -> None:
    assert not is_own(sop_class, manufacturer, model)
