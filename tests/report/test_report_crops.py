import numpy as np
import pytest

from voxelseg.errors import DataError
from voxelseg.report.crops import crop_views, read_pictures

SHAPE = (5, 6, 7)
SPACING = (3.0, 1.0, 0.5)


def masked_crop():
    """A crop of which slice 1 is hidden as a whole and slice 3 in parts."""
    scan = np.random.default_rng(0).normal(5, 1, SHAPE).astype(np.float32)
    masked = scan.copy()
    masked[1] = 0
    masked[3, :4] = 0
    return {"Scan": scan, "Masked": masked}


def test_volumes_are_shown_in_the_slice_that_is_hidden_most_but_not_as_a_whole():
    across_d, across_h = crop_views(masked_crop(), spacing_mm=SPACING)
    assert across_d.title == "Across D, slice 4 of 5"
    assert across_h.title.startswith("Across H, slice ")
    assert [title for title, _ in across_d.pictures] == ["Scan", "Masked"]
    assert 'viewBox="0 0 3.500 6.000"' in across_d.pictures[0][1]  # W 7 voxels of 0.5 mm, H 6 of 1 mm
    assert 'viewBox="0 0 3.500 15.000"' in across_h.pictures[0][1]  # D 5 voxels of 3 mm


def test_if_all_is_hidden_any_slice_is_shown():
    scan = masked_crop()["Scan"]
    (across_d, _) = crop_views({"Scan": scan, "Masked": np.zeros(SHAPE)}, spacing_mm=SPACING)
    assert len(across_d.pictures) == 2


def test_flat_pictures_come_last_and_volumes_alone_are_enough():
    views = crop_views({**masked_crop(), "Labels <told>": np.eye(4)}, spacing_mm=SPACING)
    assert views[-1].title == ""
    ((title, drawing),) = views[-1].pictures
    assert title == "Labels <told>"
    assert 'aria-label="Labels &lt;told&gt;"' in drawing
    assert len(crop_views({"Scan": np.zeros(SHAPE)}, spacing_mm=SPACING)) == 2
    assert crop_views({}, spacing_mm=SPACING) == ()


def test_pictures_of_a_folder_are_read_in_order(tmp_path):
    assert read_pictures(tmp_path) == {}
    np.savez_compressed(tmp_path / "pictures.npz", **{"Scan": np.ones(SHAPE, np.float16), "A b": np.eye(2)})
    assert list(read_pictures(tmp_path)) == ["Scan", "A b"]
    (tmp_path / "pictures.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match=r"damaged .*Delete it to get the report without pictures"):
        read_pictures(tmp_path)
