import math

import pytest

from voxelseg.train.loop.state import Counters


def test_a_validation_s_time_is_noted_and_what_all_patches_will_take(prepared, tmp_path):
    seconds = iter([10.0, 13.0, 20.0, 24.0])
    trainer = prepared.trainer(tmp_path, validation_patches=2)
    trainer.watch.clock = lambda: next(seconds)
    counters = Counters()
    assert trainer.watch.time_first_patch(counters)
    assert (counters.patch_s, counters.validation_s, counters.longest_validation_s) == (3.0, 3.0, 6.0)
    assert not trainer.watch.time_first_patch(counters)  # known
    trainer.watch.look(counters)  # 4 s for both
    assert (counters.patch_s, counters.validation_s, counters.longest_validation_s) == (2.0, 7.0, 6.0)


def test_the_mean_dice_is_that_of_the_classes_that_have_one(prepared, tmp_path):
    trainer = prepared.trainer(tmp_path)
    trainer.watch.validation = lambda *_, **__: (0.5, {"ball": 0.25, "rod": math.nan})
    trainer.watch.validation.places = [None]
    counters = Counters()
    record = trainer.watch.look(counters)
    assert (counters.score, record["mean_dice"], record["best"]) == (0.25, 0.25, True)


@pytest.mark.parametrize(("patches", "due"), [(0, False), (2, True)])
def test_without_patches_no_validation_is_due(prepared, tmp_path, patches, due):
    trainer = prepared.trainer(tmp_path, validation_patches=patches, steps_per_epoch=2)
    assert trainer.watch.is_due(Counters(step=2)) == due
