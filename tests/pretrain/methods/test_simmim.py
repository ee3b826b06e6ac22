import pytest
import torch
from pretexts import SIZE, drawn, means, prepared, small_pretext, trained

from voxelseg.errors import ConfigError

SETTINGS = {"cube": 4, "share": 0.6}


def test_sixty_percent_of_cubes_of_16_voxels_are_masked_by_default():
    method = prepared("simmim", (96, 96, 96))
    assert (method.drawer.block_size, method.drawer.share) == ((16, 16, 16), 0.6)
    assert method.record == {"trained": "all", "cube": [16, 16, 16]}


def test_masked_voxels_are_seen_as_a_token_of_each_channel():
    pretext, batch = small_pretext("simmim", **SETTINGS), drawn(prepared("simmim", **SETTINGS), 2)
    assert pretext.token.shape == (2, 1, 1, 1)
    pretext.eval()
    with torch.no_grad():
        first = pretext.restored(batch)
        hidden = {**batch, "image": batch["image"] + 7.0 * batch["mask"]}
        assert torch.equal(pretext.restored(hidden), first)
        pretext.token += 1
        assert not torch.equal(pretext.restored(batch), first)


def test_the_loss_is_the_mean_absolute_error_of_masked_voxels():
    pretext, batch = small_pretext("simmim", **SETTINGS), drawn(prepared("simmim", **SETTINGS), 2)
    pretext.eval()
    with torch.no_grad():
        loss, restored = pretext(batch), pretext.restored(batch)
    where = batch["mask"].expand_as(restored)
    assert loss == pytest.approx(float((restored - batch["image"])[where].abs().mean()))
    assert set(pretext.parts) == {"absolute error"}


def test_it_learns_to_restore_better_than_guesses_do():
    pretext, method = small_pretext("simmim", **SETTINGS), prepared("simmim", **SETTINGS)
    batch = drawn(method, 2)
    losses = trained(pretext, lambda _: batch, 60)
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        scores = means(pretext.eval().scores(batch))
    assert set(scores) == {"score", "error", "error of the visible mean", "error of the nearest visible voxel"}
    assert scores["error"] < min(scores["error of the visible mean"], scores["error of the nearest visible voxel"])
    assert scores["score"] > 0.3


def test_every_trained_parameter_gets_a_gradient():
    pretext, batch = small_pretext("simmim", **SETTINGS), drawn(prepared("simmim", **SETTINGS), 2)
    pretext(batch).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in pretext.parameters())
    assert not any(parameter.requires_grad for parameter in pretext.backbone.heads.parameters())


def test_pictures_show_restored_voxels_where_some_are_masked():
    pretext, batch = small_pretext("simmim", **SETTINGS).eval(), drawn(prepared("simmim", **SETTINGS), 2)
    with torch.no_grad():
        pictures = pretext.pictures(batch)
        restored = pretext.restored(batch)[0, 0]
    hidden, whole = batch["mask"][0, 0], batch["image"][0, 0]
    assert list(pictures) == ["Scan", "Masked", "Restored"]
    assert torch.equal(pictures["Scan"], whole)
    assert (pictures["Masked"][hidden] == whole.min()).all()
    assert torch.equal(pictures["Restored"], torch.where(hidden, restored, whole))


def test_a_cube_as_large_as_the_crop_is_refused():
    with pytest.raises(ConfigError, match=r"simmim\.cube"):
        prepared("simmim", SIZE, cube=16)
