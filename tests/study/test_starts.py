import pytest

from voxelseg.errors import ConfigError
from voxelseg.study.starts import Start, parse_starts


@pytest.fixture
def weights(tmp_path):
    """Two folders of weights, one with an equals sign in its name."""
    for name in ("pre", "tau=0.1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    return tmp_path


def test_a_start_is_called_after_its_folder_or_as_it_is_told(weights):
    pre, file = weights / "pre", weights / "pre" / "model.safetensors"
    starts = parse_starts(["scratch", str(pre), f"mae={pre}", f"best={file}"])
    assert starts == (Start("scratch", None), Start("pre", pre), Start("mae", pre), Start("best", file))


def test_a_file_is_called_after_its_folder_and_a_path_may_hold_an_equals_sign(weights):
    (_, start) = parse_starts(["scratch", str(weights / "pre" / "model.safetensors")])
    assert start.name == "pre"
    with pytest.raises(ConfigError, match=r"cannot be that of a folder\. Give one: NAME=PATH"):
        parse_starts(["scratch", str(weights / "tau=0.1")])
    (_, start) = parse_starts(["scratch", f"tau={weights / 'tau=0.1'}"])
    assert start == Start("tau", weights / "tau=0.1")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["scratch", "nowhere"], "there is no nowhere. Give scratch, the folder of a pre-training"),
        (["scratch", "a=nowhere"], "there is no nowhere"),
        (["scratch", "a="], "there is no path"),
        (["scratch", "PRE", "other=PRE", "pre=PRE"], "several starts are called pre. Give each a name"),
        (["scratch", "scratch", "PRE"], "several starts are called scratch"),
        (["scratch"], "scratch alone has nothing to be compared with"),
        (["PRE"], "--start scratch is missing"),
        (["scratch=PRE", "PRE"], "scratch is the start with fresh weights"),
        (["scratch", "a/b=PRE"], "the name 'a/b' cannot be that of a folder"),
        (["scratch", "..=PRE"], "the name '..' cannot be"),
    ],
)
def test_impossible_starts_are_refused(weights, texts, message):
    with pytest.raises(ConfigError, match=message):
        parse_starts([text.replace("PRE", str(weights / "pre")) for text in texts])
