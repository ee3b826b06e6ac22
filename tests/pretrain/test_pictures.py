import numpy as np
import pytest


@pytest.mark.parametrize(
    ("method", "titles"),
    [
        ("simmim", ["Scan", "Masked", "Restored"]),
        ("rubik", ["Scan", "Disarranged", "Restored"]),
        (
            "masked-clusters",
            ["Scan", "Masked", "Labels by clusterer and slice: white rightly told, black wrongly, grey not asked for"],
        ),
    ],
)
def test_a_finished_pre_training_has_pictures_of_a_crop(tiny_scans, tmp_path, method, titles):
    tiny_scans.train(tiny_scans.opened(tmp_path / "pre", method=method, epochs=1))
    with np.load(tmp_path / "pre" / "pictures.npz") as file:
        found = {title: file[title] for title in file.files}
    assert list(found) == titles
    shapes = {array.shape for array in found.values() if array.ndim == 3}
    assert shapes == {(16, 32, 16)}
    assert all(np.isfinite(array).all() for array in found.values())
    for labels in (array for array in found.values() if array.ndim == 2):
        assert labels.shape == (2, 16)  # clusterers, slices
        assert set(np.unique(labels)) <= {0.0, 0.5, 1.0}
        assert (labels != 0.5).any()
