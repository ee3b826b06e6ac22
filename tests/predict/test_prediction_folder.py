import json
import os

import numpy as np
import pytest

from voxelseg.data.dataset import Case
from voxelseg.errors import ConfigError, DataError, VoxelsegError
from voxelseg.geometry import Grid
from voxelseg.io import read_volume, write_volume
from voxelseg.predict.folder import PredictionFolder, predict_cases
from voxelseg.volume import Volume

AFFINE = np.array([[-0.8, 0.1, 0, 9], [0.1, 0.8, 0, -4], [0, 0, -2, 2], [0, 0, 0, 1.0]])  # oblique and flipped


class Brightness:
    """Stands for a Predictor: class 1 where the scan is positive; counts what it is asked for."""

    def __init__(self, answer=1):
        self.asked = 0
        self.answer = answer
        self.labels = self

    def probabilities(self, scan, progress=None):
        self.asked += 1
        if np.isnan(scan.array).any():
            raise DataError("the scan holds NaN")
        bright = (scan.array[0] > 0).astype(np.float32)
        if progress is not None:
            progress(0.5)
        return np.stack([1 - bright, bright])

    def decode(self, values):
        return (values[1] > 0.5).astype(np.uint8) * self.answer


@pytest.fixture
def cases(tmp_path):
    """Scans a and b."""
    rng = np.random.default_rng(0)
    made = []
    for name in "ab":
        grid = Grid(
            shape_ijk=(6, 5, 4), affine_ijk=AFFINE, sform=AFFINE, sform_code=2, qform=AFFINE, qform_code=1, units="mm"
        )
        path = tmp_path / "scans" / f"{name}.nii.gz"
        write_volume(path, Volume(rng.normal(0, 1, (1, *grid.shape_dhw)).astype(np.float32), grid))
        made.append(Case(id=name, images=(path,)))
    return made


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def folder(out, *, model="m", **options):
    return PredictionFolder(out, settings={"models": [model]}, **options)


def test_outputs_lie_on_the_scan_s_own_grid_voxel_for_voxel(cases, out):
    paths = predict_cases(Brightness(), cases, folder(out))
    assert paths == {name: out / f"{name}.nii.gz" for name in "ab"}
    for case in cases:
        scan, label = read_volume(case.images[0]), read_volume(paths[case.id])
        np.testing.assert_array_equal(label.array, scan.array > 0)
        assert label.grid.shape_ijk == scan.grid.shape_ijk
        np.testing.assert_array_equal(label.grid.affine_ijk, scan.grid.affine_ijk)
        assert (label.grid.sform_code, label.grid.qform_code) == (2, 1)


def test_probabilities_are_one_file_with_a_channel_for_each_output(cases, out):
    predict_cases(Brightness(), cases, folder(out, probabilities=True))
    values = read_volume(out / "probabilities" / "a.nii.gz")
    assert values.array.shape == (2, 4, 5, 6)
    np.testing.assert_array_equal(values.array.sum(axis=0), 1.0)
    assert {path.name for path in out.glob("[!.]*")} == {"a.nii.gz", "b.nii.gz", "prediction.json", "probabilities"}


def test_what_is_there_already_is_kept(cases, out):
    predictor = Brightness()
    predict_cases(predictor, cases, folder(out))
    predict_cases(predictor, cases, folder(out))
    assert predictor.asked == 2


def test_how_long_each_prediction_took_is_kept_with_it(cases, out):
    predict_cases(Brightness(), cases, folder(out))
    taken = folder(out).seconds
    assert set(taken) == {"a", "b"}
    assert all(seconds > 0 for seconds in taken.values())
    predict_cases(Brightness(), cases, folder(out))  # nothing is predicted again
    assert folder(out).seconds == taken
    assert not folder(out, model="another").seconds


@pytest.mark.parametrize("change", ["model", "scan", "lost output", "probabilities asked for"])
def test_what_is_not_current_is_made_again(cases, out, change):
    predictor = Brightness()
    predict_cases(predictor, cases, folder(out))
    options = {}
    if change == "model":
        options = {"model": "another"}
    elif change == "scan":
        state = cases[0].images[0].stat()
        os.utime(cases[0].images[0], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    elif change == "lost output":
        (out / "a.nii.gz").unlink()
    else:
        options = {"probabilities": True}
    predict_cases(predictor, cases, folder(out, **options))
    assert predictor.asked == 2 + (1 if change in ("scan", "lost output") else 2)


def test_a_scan_that_changes_while_it_is_predicted_is_predicted_again(cases, out):
    class Slow(Brightness):
        def probabilities(self, scan, progress=None):
            os.utime(cases[0].images[0], ns=(1, 1))
            return super().probabilities(scan, progress)

    predict_cases(Slow(), cases[:1], folder(out))
    predictor = Brightness()
    predict_cases(predictor, cases[:1], folder(out))
    assert predictor.asked == 1


def test_a_label_map_whose_scan_is_gone_does_not_count_as_made(cases, out):
    predict_cases(Brightness(), cases, folder(out))
    cases[0].images[0].unlink()
    for model in ("m", "another"):
        assert not folder(out, model=model).holds(cases[0])
        with pytest.raises(DataError, match=r"1 of 2 cases could not be predicted.*\n  a: "):
            predict_cases(Brightness(), cases, folder(out, model=model))


def test_probabilities_of_another_model_do_not_stay_beside_a_new_label_map(cases, out):
    predict_cases(Brightness(), cases, folder(out, probabilities=True))
    predict_cases(Brightness(), cases, folder(out, model="another"))
    assert list((out / "probabilities").iterdir()) == []


def test_bad_scans_are_listed_together_and_the_good_ones_predicted(cases, out, tmp_path):
    damaged = tmp_path / "scans" / "damaged.nii.gz"
    damaged.write_bytes(cases[0].images[0].read_bytes()[:60])
    nan = tmp_path / "scans" / "nan.nii.gz"
    scan = read_volume(cases[0].images[0])
    write_volume(nan, Volume(np.full_like(scan.array, np.nan), scan.grid))
    bad = [
        Case(id="damaged", images=(damaged,)),
        Case(id="gone", images=(tmp_path / "gone.nii.gz",)),
        Case(id="nan", images=(nan,)),
    ]
    with pytest.raises(DataError) as error:
        predict_cases(Brightness(), [bad[0], cases[0], *bad[1:], cases[1]], folder(out))
    message = str(error.value)
    assert message.startswith("3 of 5 cases could not be predicted, the others were:")
    assert all(f"\n  {name}: " in message for name in ("damaged", "gone", "nan"))
    assert {path.name for path in out.glob("[!.]*")} == {"a.nii.gz", "b.nii.gz", "prediction.json"}


def test_a_failure_of_the_network_stops_with_the_case_s_name(cases, out):
    class Failing(Brightness):
        def probabilities(self, scan, progress=None):
            raise VoxelsegError("the network's output is not a number.")

    with pytest.raises(VoxelsegError, match=r"^a: the network's output"):
        predict_cases(Failing(), cases, folder(out))


def test_an_output_folder_that_cannot_be_written_is_reported_before_any_work(cases, tmp_path):
    (tmp_path / "file").write_text("in the way")
    predictor = Brightness()
    with pytest.raises(VoxelsegError, match="cannot be written"):
        predict_cases(predictor, cases, folder(tmp_path / "file" / "out"))
    assert predictor.asked == 0


def test_a_prediction_that_was_killed_is_finished_and_its_leftovers_removed(cases, out):
    predictor = Brightness()
    predict_cases(predictor, cases[:1], folder(out))
    (out / ".partial-0000-b.nii.gz").write_bytes(b"half")
    predict_cases(predictor, cases, folder(out))
    assert predictor.asked == 2
    assert not list(out.glob(".partial-*"))


@pytest.mark.parametrize("name", ["a.nii.gz", "probabilities/b.nii.gz"])
def test_files_that_no_prediction_has_written_are_never_replaced(cases, out, name):
    predict_cases(Brightness(), cases[:1] if name.endswith("b.nii.gz") else [], folder(out))
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("a reference")
    predictor = Brightness()
    with pytest.raises(ConfigError, match=f"{name}: is there already, and no prediction has written it"):
        predict_cases(predictor, cases, folder(out))
    assert (out / name).read_text() == "a reference"
    assert predictor.asked == 0


def test_a_label_map_whose_writing_was_followed_by_a_kill_is_made_again(cases, out):
    class Killed(PredictionFolder):
        def _write_record(self):
            if any(self._scans.values()):
                raise KeyboardInterrupt
            super()._write_record()

    with pytest.raises(KeyboardInterrupt):
        predict_cases(Brightness(), cases, Killed(out, settings={"models": ["m"]}))
    assert (out / "a.nii.gz").exists()
    predictor = Brightness()
    predict_cases(predictor, cases, folder(out))
    assert predictor.asked == 2


def test_label_maps_of_two_models_never_lie_side_by_side(cases, out):
    predict_cases(Brightness(), cases, folder(out))
    with pytest.raises(ConfigError, match=r"label maps that other models or options made \(b\.nii\.gz\)"):
        predict_cases(Brightness(), cases[:1], folder(out, model="another"))
    predictor = Brightness()
    cases[0].images[0].write_bytes(b"damaged")
    with pytest.raises(DataError, match="1 of 2 cases"):
        predict_cases(predictor, cases, folder(out, model="another"))
    assert [path.name for path in out.glob("*.nii.gz")] == ["b.nii.gz"]


def test_scans_that_need_too_much_memory_are_named_and_the_others_predicted(cases, out):
    class Hungry(Brightness):
        def probabilities(self, scan, progress=None):
            if self.asked == 0:
                self.asked += 1
                raise MemoryError("Unable to allocate 9 TiB")
            return super().probabilities(scan, progress)

    with pytest.raises(DataError, match=r"a: the memory ran out \(Unable to allocate 9 TiB\)"):
        predict_cases(Hungry(), cases, folder(out))
    assert (out / "b.nii.gz").exists()


def test_a_damaged_record_is_refused_with_the_remedy(cases, out):
    out.mkdir()
    for content in ('{"key": ', "[1]", '{"cases": 3}'):
        (out / "prediction.json").write_text(content)
        with pytest.raises(DataError, match=r"prediction\.json.*Delete"):
            folder(out)


def test_progress_counts_cases_and_parts_of_them(cases, out):
    told = []
    predict_cases(Brightness(), cases, folder(out), progress=lambda done, case: told.append((done, case)))
    assert told == [(0, "a"), (0.5, "a"), (1, "a"), (1, "b"), (1.5, "b"), (2, "b")]


def test_the_record_says_what_the_label_maps_were_made_with(cases, out):
    predict_cases(Brightness(), cases, folder(out))
    record = json.loads((out / "prediction.json").read_text())
    assert record["settings"] == {"models": ["m"]}
    assert set(record["cases"]) == {"a", "b"}
