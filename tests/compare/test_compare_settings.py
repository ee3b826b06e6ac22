import pytest

from voxelseg.compare.settings import CompareSettings
from voxelseg.errors import ConfigError
from voxelseg.metrics import column


def test_a_ratio_has_the_margin_and_a_length_only_its_own():
    settings = CompareSettings(margin=0.01, margins={"hd95_mm": 0.5, "surface_dice": 0.02})
    assert settings.margin_of(column("dice", tolerance_mm=1.0)) == 0.01
    assert settings.margin_of(column("surface_dice", tolerance_mm=1.0)) == 0.02
    assert settings.margin_of(column("hd95_mm", tolerance_mm=1.0)) == 0.5
    assert CompareSettings().margin_of(column("hd95_mm", tolerance_mm=1.0)) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"margin": 0.0}, "margin of margin must be a positive"),
        ({"margins": {"hd95_mm": -1.0}}, "margin of hd95_mm"),
        ({"alpha": 0.5}, "alpha"),
        ({"power": 1.0}, "power"),
        ({"resamples": 10}, "resamples"),
        ({"missing": "ignore"}, "missing must be one of refuse, worst, leave-out, got 'ignore'"),
    ],
)
def test_impossible_settings_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        CompareSettings(**wrong)
