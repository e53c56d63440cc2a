"""Where slices lie: order, spacing, gaps, duplicates, and how an image is turned."""

from __future__ import annotations

import numpy as np
import pytest

from firstread.dicom.frames import frames_of
from firstread.dicom.geometry import Turn, missing_slices, plane_of, stack_of, turn_of
from firstread.phantoms.ct import CtGrid, CtLabels, enhanced_ct
from firstread.phantoms.head import HeadSpec, head_study

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
TILTED = (1.0, 0.0, 0.0, 0.0, 0.920504853, -0.390731128)


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (AXIAL, "axial"),
        (TILTED, "axial"),
        ((-1.0, 0, 0, 0, 1, 0), "axial"),
        ((1, 0, 0, 0, 0, -1), "coronal"),
        ((0, 1, 0, 0, 0, -1), "sagittal"),
        ((0.7071, 0.7071, 0, -0.4082, 0.4082, 0.8165), "oblique"),
        ((0, 0, 0, 0, 0, 0), None),
        (None, None),
    ],
)
def test_plane(orientation: tuple[float, ...] | None, plane: str | None) -> None:
    assert plane_of(orientation) == plane


def _positions(*z: float) -> list[tuple[float, ...] | None]:
    return [(0.0, 0.0, place) for place in z]


def test_slices_are_sorted_along_the_normal_from_feet_to_head() -> None:
    stack = stack_of(_positions(10, 0, 5), [AXIAL] * 3, [1, 2, 3])
    assert stack.order == (1, 2, 0)
    assert stack.spacing_mm == pytest.approx(5)
    assert stack.coverage_mm == pytest.approx(15)


def test_a_flipped_normal_changes_nothing() -> None:
    flipped = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert stack_of(_positions(10, 0, 5), [flipped] * 3, [1, 2, 3]).order == (1, 2, 0)


def test_tilted_slices_are_nearer_than_their_table_steps() -> None:
    stack = stack_of(_positions(0, 5, 10), [TILTED] * 3, [1, 2, 3])
    assert stack.spacing_mm == pytest.approx(5 * 0.9205, abs=1e-3)


def test_of_two_slices_at_one_position_the_lower_number_stays() -> None:
    stack = stack_of(_positions(0, 5, 5.01, 10), [AXIAL] * 4, [1, 9, 2, 3])
    assert stack.order == (0, 2, 3)
    assert stack.duplicates == (1,)


def test_without_positions_the_fallback_orders() -> None:
    stack = stack_of([None, (0.0, 0.0, 1.0), None], [AXIAL] * 3, [3, 1, 2])
    assert stack.order == (1, 2, 0)
    assert stack.position_mm is None and stack.extent_mm() is None


@pytest.mark.parametrize(
    ("steps", "thickness", "missing"),
    [
        ([5, 5, 5, 5], None, 0),
        ([5, 5, 10, 5, 5], None, 1),
        ([5, 5, 20, 5, 5], None, 3),
        ([5, 5, 5, 10], None, 1),
        ([3, 3, 3, 6, 6, 6], None, 0),
        ([10, 10, 10], 5.0, 3),
        ([2.5, 2.5, 2.5], 5.0, 0),
        ([45.0], 5.0, 8),
        ([], 5.0, 0),
    ],
)
def test_missing_slices(steps: list[float], thickness: float | None, missing: int) -> None:
    thick = None if thickness is None else np.full(len(steps) + 1, thickness)
    assert missing_slices(np.asarray(steps, float), thick) == missing


def test_extent_stands_for_half_the_way_and_bridges_no_gap() -> None:
    stack = stack_of(_positions(0, 5, 10, 25, 30), [AXIAL] * 5, range(5))
    assert _list(stack.extent_mm()) == pytest.approx([5, 5, 5, 5, 5])
    uneven = stack_of(_positions(0, 4, 8, 13, 18), [AXIAL] * 5, range(5))
    assert _list(uneven.extent_mm()) == pytest.approx([4, 4, 4.5, 5, 5])


def test_thin_and_thick_slices_touch_without_a_gap_and_keep_their_own_thickness() -> None:
    thickness = [3.0, 3.0, 3.0, 6.0, 6.0, 6.0]
    places = [0.0, 3.0, 6.0, 10.5, 16.5, 22.5]
    for turned in (1, -1):
        stack = stack_of(_positions(*places)[::turned], [AXIAL] * 6, range(6), thickness[::turned])
        assert _list(stack.extent_mm()) == pytest.approx(thickness)
        assert stack.missing == 0 and stack.coverage_mm == pytest.approx(27)


def test_an_unknown_thickness_is_that_of_the_nearest_slice() -> None:
    stack = stack_of(_positions(0, 3, 6, 10.5, 16.5), [AXIAL] * 5, range(5), [None, 3.0, None, 6.0, None])
    assert _list(stack.thickness_mm) == [3, 3, 3, 6, 6]


def test_one_slice_with_another_orientation_turns_no_other() -> None:
    odd = (1.0, 0.0, 0.0, 0.0, 0.99, -0.141)
    assert stack_of(_positions(0, 5, 10), [odd, AXIAL, AXIAL], [1, 2, 3]).spacing_mm == pytest.approx(5)


@pytest.mark.parametrize(
    ("steps", "thickness", "missing"),
    [
        ([3, 3, 4.5, 6, 6], [3, 3, 3, 6, 6, 6], 0),
        ([3, 3, 4.5, 12, 6, 6], [3, 3, 3, 6, 6, 6, 6], 1),
        ([3, 3, 10.5, 6, 6], [3, 3, 3, 6, 6, 6], 1),
        ([2.5] * 31 + [0.25] + [7.5] * 11, [2.5] * 32 + [7.5] * 12, 0),
        ([2.5, 2.5, 5, 2.5, 5, 7.5, 7.5], [2.5] * 5 + [7.5] * 3, 1),
        ([5, 5, 5, 5], [0.5, 5, 5, 5, 5], 0),
    ],
)
def test_missing_slices_where_thickness_changes(steps: list[float], thickness: list[float], missing: int) -> None:
    assert missing_slices(np.asarray(steps, float), np.asarray(thickness, float)) == missing


def _list(values: np.ndarray | None) -> list[float]:
    assert values is not None
    return [float(value) for value in values]


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (AXIAL, Turn(sides_known=True)),
        ((-1, 0, 0, 0, 1, 0), Turn(flip_columns=True, sides_known=True)),
        ((1, 0, 0, 0, -1, 0), Turn(flip_rows=True, sides_known=True)),
        ((0, 1, 0, 1, 0, 0), Turn(transpose=True, sides_known=True)),
        (None, Turn()),
    ],
)
def test_turn(orientation: tuple[float, ...] | None, turn: Turn) -> None:
    assert turn_of(orientation) == turn


@pytest.mark.parametrize("orientation", [AXIAL, (-1, 0, 0, 0, -1, 0), (0, -1, 0, 1, 0, 0), (0, 1, 0, -1, 0, 0)])
def test_turning_puts_right_at_left_and_front_on_top_and_can_be_undone(orientation: tuple[float, ...]) -> None:
    rows, columns = np.mgrid[:4, :4].astype(float)
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    x = columns * row[0] + rows * column[0]
    y = columns * row[1] + rows * column[1]
    turn = turn_of(orientation)
    assert (np.diff(turn.apply(x), axis=1) > 0).all()
    assert (np.diff(turn.apply(y), axis=0) > 0).all()
    np.testing.assert_array_equal(turn.undo(turn.apply(x)), x)


def test_frames_of_a_single_frame_object() -> None:
    (frame,) = frames_of(head_study(HeadSpec(slices=1, size=16)).objects[0])
    assert frame.number == 0 and frame.index == 0
    assert frame.SliceThickness == 5 and frame.rescale is not None and frame.rescale.intercept == -1024
    assert frame.FrameType == ("ORIGINAL", "PRIMARY", "AXIAL")


def test_frames_of_an_enhanced_object_read_shared_and_own_groups() -> None:
    grid = CtGrid(0.5, 4.0, 4.0, first_mm=-20.0)
    ds = enhanced_ct(np.zeros((3, 8, 8), np.float32), grid, CtLabels(), order=[2, 0, 1])
    frames = frames_of(ds)
    assert [frame.number for frame in frames] == [1, 2, 3]
    assert [frame.ImagePositionPatient[2] for frame in frames if frame.ImagePositionPatient] == [-12, -20, -16]
    assert frames[0].PixelSpacing == (0.5, 0.5) and frames[1].rescale is not None


def test_rescale_that_is_no_number_has_a_fault() -> None:
    ds = head_study(HeadSpec(slices=1, size=16)).objects[0]
    ds["RescaleIntercept"]._value = float("nan")
    rescale = frames_of(ds)[0].rescale
    assert rescale is not None and rescale.fault == "RescaleIntercept is not a number"
