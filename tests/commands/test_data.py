"""The commands `data list`, `data show` and `data convert`, and their command line."""

import json
import subprocess
import sys

import pytest
from look_alikes import amos22, brats21, btcv
from rich.console import Console

from voxelseg.__main__ import main
from voxelseg.commands import data
from voxelseg.data import read_dataset
from voxelseg.data.convert import PUBLIC_DATASETS
from voxelseg.errors import ConfigError
from voxelseg.recipes import RECIPES


@pytest.fixture
def voxelseg(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process, 100 characters wide; gives exit code and both outputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["voxelseg", "data", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_list_has_a_line_for_every_data_set(voxelseg):
    code, out, _ = voxelseg("list")
    assert code == 0
    starts = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert starts == ["name", *PUBLIC_DATASETS]
    (line,) = [line for line in out.splitlines() if line.startswith("  msd_spleen ")]
    assert line.split()[-6:] == ["spleen", "CT", "1", "41", "20", "LoGoNet"]


def test_list_as_json_says_all(voxelseg):
    code, out, _ = voxelseg("list", "--json")
    assert code == 0
    found = {one["name"]: one for one in json.loads(out)}
    assert list(found) == list(PUBLIC_DATASETS)
    assert found["brats21"]["labels"]["tumour core"] == [1, 4]
    assert found["brats21"]["regions"] is True
    assert found["btcv"]["held_out"][0]["validation"][0] == "img0035"


@pytest.mark.parametrize("name", PUBLIC_DATASETS)
def test_show_says_all_about_one(voxelseg, name):
    dataset = PUBLIC_DATASETS[name]
    code, out, err = voxelseg("show", name)
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert dataset.title in words
    for text in (*dataset.pages, *dataset.fetch, *dataset.papers, *dataset.remarks, dataset.citation, dataset.licence):
        assert " ".join(text.split()) in words
    for one in dataset.labels.classes:
        assert f"{one.values[-1]} {one.name}" in words
    assert f"{dataset.sources[0].folder}/" in words


def test_show_names_the_recipes_for_a_data_set(voxelseg):
    _, out, _ = voxelseg("show", "btcv", "--json")
    found = json.loads(out)
    assert found["recipes"] == [name for name, recipe in RECIPES.items() if recipe.data == "btcv"] != []
    assert found["folder"].startswith("RawData/\n    Training/\n        img/\n            img0001.nii.gz\n")


def test_an_unknown_data_set_is_refused(voxelseg):
    for arguments in (("show", "btvc"), ("convert", "btvc", "in", "out")):
        code, _, err = voxelseg(*arguments)
        assert code == 2
        assert "there is no public data set 'btvc' (did you mean 'btcv'?)" in err
    with pytest.raises(ConfigError):
        data.show_data("btvc")


def test_convert_says_what_it_found_wrote_and_what_comes_next(voxelseg, tmp_path):
    folder = btcv(tmp_path / "down load")
    code, out, err = voxelseg("convert", "btcv", tmp_path / "down load", "new data")
    assert (code, out) == (0, "")
    assert f"in {folder}." in err
    assert "Warning: 5 complete training cases found, btcv has 30." in err
    assert "Wrote new data: 5 training and 1 test cases; 6 files are hard links and 5 copies." in err
    assert "Folds in splits_final.json: nnU-Net's five folds, read by default." in err
    assert "Cite: Landman et al." in err
    assert err.endswith("Next:\n  voxelseg check 'new data'\n")
    assert read_dataset(tmp_path / "new data").name == "btcv"


def test_convert_refuses_what_is_wrong_with_one_message(voxelseg, tmp_path):
    folder = btcv(tmp_path / "download")
    (folder / "Training" / "img" / "img0001.nii.gz").unlink()
    code, _, err = voxelseg("convert", "btcv", folder, "new")
    assert code == 2
    assert "Training/img/img0001.nii.gz not found" in err
    assert "Traceback" not in err
    code, _, err = voxelseg("convert", "btcv", folder, "new", "--how", "move")
    assert (code, "expected link or copy" in err) == (2, True)
    assert not (tmp_path / "new").exists()


def test_what_belongs_to_another_data_set_is_said_to_be_left_out(tmp_path):
    console = Console(record=True, width=100, force_terminal=False)
    data.convert_data("amos22_mri", amos22(tmp_path / "in"), tmp_path / "out", how="copy", console=console)
    text = console.export_text()
    assert "Left out 4 cases that do not belong to amos22_mri." in text
    assert "Found" not in text  # the folder itself was given


def test_without_a_console_nothing_is_printed(tmp_path, capsys):
    conversion = data.convert_data("brats21", brats21(tmp_path / "in"), tmp_path / "out")
    assert conversion.num_training == 3
    assert capsys.readouterr() == ("", "")


def test_listing_does_not_wait_for_torch():
    script = "from voxelseg.commands import data; data.list_data(); import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
