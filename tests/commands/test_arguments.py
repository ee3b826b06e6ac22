import pytest
import torch

from voxelseg.commands.arguments import choose_device, parse_duration, parse_folds, parse_growth
from voxelseg.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("1h30m", 5400), ("1h30m20s", 5420), (" 4M ", 240), ("0.5s", 0.5)],
)
def test_durations_are_hours_minutes_and_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "20", "m", "0m", "-5m", "5m3h", "1m1m", "five minutes", "nan s", "1.2.3h", "infh"]
)
def test_other_durations_are_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="expected a time such as 90s, 20m or 1h30m"):
        parse_duration(text)


def test_folds_are_a_number_a_list_or_all():
    assert parse_folds("0") == [0]
    assert parse_folds("3, 1,3") == [1, 3]
    assert parse_folds("all") is None
    for text in ("", "one", "0;1", "0,"):
        with pytest.raises(ConfigError, match="expected a number, a list such as 0,1, or all"):
            parse_folds(text)


def test_kernels_grow_from_an_odd_size_to_a_larger_odd_one():
    assert parse_growth("3:5") == [3, 5]
    assert parse_growth(" 5:11 ") == [5, 11]
    for text in ("", "3", "5:3", "3:3", "3:4", "2:5", "0:3", "3-5", "3:5:7"):
        with pytest.raises(ConfigError, match=r"expected two odd sizes, the smaller one first, such as 3:5"):
            parse_growth(text)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"device cuda:2: found 2 CUDA devices here.*below 2"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "mps", "meta", "cpu:0", ""])
def test_other_devices_are_refused(name):
    with pytest.raises(ConfigError, match="expected cpu, cuda, cuda:N or auto"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device cuda: found no CUDA device here. Use --device cpu"):
        choose_device("cuda")
