import copy

import pytest
import torch
from pretexts import SIZE, drawn, means, prepared, small_network, small_pretext, trained

from voxelseg.errors import ConfigError
from voxelseg.nets import create_model

SETTINGS = {"block": 4, "share": 0.5}


def test_three_quarters_of_blocks_of_16_voxels_are_masked_by_default():
    method = prepared("mae", (96, 96, 96))
    assert (method.drawer.block_size, method.drawer.share) == ((16, 16, 16), 0.75)
    assert method.record == {"trained": "all", "block": [16, 16, 16]}


def test_what_is_masked_is_not_seen():
    pretext, batch = small_pretext("mae", **SETTINGS).eval(), drawn(prepared("mae", **SETTINGS), 2)
    with torch.no_grad():
        hidden = {**batch, "image": batch["image"] + 7.0 * batch["mask"]}
        assert torch.equal(pretext.restored(hidden), pretext.restored(batch))


def test_the_loss_is_the_mean_squared_error_of_masked_voxels():
    pretext, batch = small_pretext("mae", **SETTINGS).eval(), drawn(prepared("mae", **SETTINGS), 2)
    with torch.no_grad():
        loss, restored = pretext(batch), pretext.restored(batch)
    where = batch["mask"].expand_as(restored)
    assert loss == pytest.approx(float((restored - batch["image"])[where].square().mean()), rel=1e-5)


def test_it_learns_to_restore_better_than_guesses_do():
    pretext, batch = small_pretext("mae", **SETTINGS), drawn(prepared("mae", **SETTINGS), 2)
    losses = trained(pretext, lambda _: batch, 60)
    assert losses[-1] < losses[0] / 2
    with torch.no_grad():
        scores = means(pretext.eval().scores(batch))
    assert scores["error"] < min(scores["error of the visible mean"], scores["error of the nearest visible voxel"])


def test_the_network_is_as_it_was_once_nothing_is_masked():
    pretext, batch = small_pretext("mae", **SETTINGS).eval(), drawn(prepared("mae", **SETTINGS), 2)
    plain = small_network().eval()
    with torch.no_grad():
        pretext(batch)
        assert torch.equal(pretext.backbone.features(batch["image"]), plain.features(batch["image"]))


def test_a_copy_of_the_method_has_a_mask_of_its_own():
    pretext, batch = small_pretext("mae", **SETTINGS), drawn(prepared("mae", **SETTINGS), 2)
    pretext(batch)  # in training the mask stays for the backward pass
    twin = copy.deepcopy(pretext).eval()
    other = {**batch, "mask": ~batch["mask"]}
    with torch.no_grad():
        alone = small_pretext("mae", **SETTINGS).eval()(other)
        assert twin(other) == alone
    assert pretext.encoder_mask is not twin.encoder_mask


def test_activations_that_are_computed_again_see_the_same_mask():
    def gradients(checkpointing):
        torch.manual_seed(0)
        options = {"width": 4, "blocks": 1, "checkpointing": checkpointing}
        network = create_model("mednext_s", in_channels=2, num_classes=3, **options)
        pretext = prepared("mae", (16, 32, 16), block=8, share=0.5).build(network)
        pretext(drawn(prepared("mae", (16, 32, 16), block=8, share=0.5), 2, (16, 32, 16))).backward()
        return [parameter.grad for parameter in pretext.parameters() if parameter.grad is not None]

    for kept, again in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(kept, again)


def test_a_block_as_large_as_the_crop_is_refused():
    with pytest.raises(ConfigError, match=r"mae\.block"):
        prepared("mae", SIZE, block=16)
