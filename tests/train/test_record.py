import re
from pathlib import Path

import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.train.record import differences, made_with, refuse_others

_PROCESSORS = Path("/proc/cpuinfo")
"""On Linux."""


def test_what_differs_is_named_by_its_path_but_for_what_may_change():
    stored = {"seed": 0, "config": {"train": {"lr": 1, "workers": 1}, "model": {}}}
    wanted = {"seed": 0, "config": {"train": {"lr": 2, "workers": 2}, "model": {"width": 4}}}
    assert differences(stored, wanted) == ["config.model.width was None, now 4", "config.train.lr was 1, now 2"]
    assert differences(stored, wanted, may_change=("config",)) == []
    assert differences(stored, stored) == []


def test_the_order_counts_only_where_it_is_said_to():
    stored, wanted = {"factors": {"a": 1, "b": 2}}, {"factors": {"b": 2, "a": 1}}
    assert differences(stored, wanted) == []
    assert differences(stored, wanted, ordered=("factors",)) == ["factors was in the order a, b, now b, a"]


def test_a_folder_with_another_training_is_refused_and_six_differences_are_listed(tmp_path):
    refuse_others(tmp_path, [])
    with pytest.raises(ConfigError, match=r"other settings \(0; 1; 2; 3; 4; 5; and 2 more\)\. Choose another --out"):
        refuse_others(tmp_path, [str(number) for number in range(8)])


def test_a_record_says_what_made_it():
    made = made_with(torch.device("cpu"))
    assert made["device"].startswith("cpu (")
    assert made["device"].endswith(f"{torch.get_num_threads()} threads)")
    if _PROCESSORS.is_file() and "model name" in (text := _PROCESSORS.read_text()):
        assert re.findall(r"model name\s*: (.+)", text)[0].strip() in made["device"]
    assert {"python", "torch", "numpy"} <= made["versions"].keys()
