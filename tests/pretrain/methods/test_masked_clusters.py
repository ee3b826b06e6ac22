from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretexts import SIZE, SmoothCrops, count_passes, drawn, means, small_network, surroundings, trained
from pydantic import ValidationError

from voxelseg.data.labels import NO_LABELS
from voxelseg.errors import CheckpointError, ConfigError, DataError
from voxelseg.preprocess import store as store_module
from voxelseg.preprocess.store import StoredCase
from voxelseg.pretrain.clusters.labels import Clusterers
from voxelseg.pretrain.clusters.slices import slices_of
from voxelseg.pretrain.methods.masked_clusters import (
    MaskedClusters,
    MaskedClustersConfig,
    MaskedCropDrawer,
    _of_nearest_visible,
    prepare,
)
from voxelseg.pretrain.methods.method import Prepared

SIZES = (3, 5)
MASK = {"chain_length": 2, "seed_share": 0.25, "patch_sizes": (2, 4)}


def clusterers(slice_axis=0):
    """Two clusterers whose centres are slices of one crop."""
    image = torch.from_numpy(SmoothCrops().random(np.random.default_rng(9)))
    rows = slices_of(image[None], slice_axis)[0]
    return Clusterers(rows[: sum(SIZES)].contiguous(), SIZES, torch.tensor([1, 7, 2, 1, 1, 1, 1, 6]))


def config(**changes):
    return MaskedClustersConfig(**{"mask": MASK, "most_clusters": 80, **changes})


def pretext(slice_axis=0, **changes):
    where = replace(surroundings(), slice_axis=slice_axis)
    return MaskedClusters(
        small_network(), clusterers=clusterers(slice_axis), settings=config(**changes), surroundings=where
    )


def batch(number=2, slice_axis=0):
    drawer = MaskedCropDrawer(config().mask, slice_axis)
    return drawn(Prepared(drawer=drawer, build=pretext, record={}), number)


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_a_sample_is_an_unmasked_crop_with_its_mask(slice_axis):
    sample = batch(3, slice_axis)
    assert sample["image"].shape == (3, 2, *SIZE)
    assert sample["hidden"].shape == (3, *SIZE)
    assert sample["slices"].shape == (3, SIZE[slice_axis])
    hidden = sample["hidden"].movedim(1 + slice_axis, 1).flatten(2).any(2)
    assert not (hidden & ~sample["slices"]).any()  # nothing is hidden of a slice that does not count
    crops = [SmoothCrops().random(np.random.default_rng((0, number))) for number in range(3)]
    torch.testing.assert_close(sample["image"], torch.from_numpy(np.stack(crops)))


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
@pytest.mark.parametrize("head", ["slice", "paper"])
def test_the_loss_is_the_mean_over_masked_slices_and_clusterers_of_clusters_that_there_are(head, slice_axis):
    found, sample = pretext(slice_axis, head=head).eval(), batch(2, slice_axis)
    with torch.no_grad():
        loss = found(sample)
        image = sample["image"].masked_fill(sample["hidden"][:, None], 0)
        logits = found.head(found.backbone.features(image), sample["slices"])
    labels = found.clusterers.labels(slices_of(sample["image"], slice_axis).flatten(0, 1))
    labels = labels.unflatten(0, sample["slices"].shape)
    expected = []
    for place, (b, z) in enumerate(sample["slices"].nonzero().tolist()):
        for clusterer, size in enumerate(SIZES):
            wanted = int(labels[b, z, clusterer])
            expected.append(-F.log_softmax(logits[place, clusterer, :size] / 0.1, dim=0)[wanted])
    assert float(loss) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    assert float(found.parts["cross entropy"]) == float(loss)


def test_a_clusterer_learns_nothing_about_clusters_that_it_lacks():
    logits = torch.tensor([[[2.0, 1.0, -torch.inf, -torch.inf, -torch.inf], [1.0, 1.0, 1.0, 1.0, 1.0]]])
    logits.requires_grad_()
    losses = pretext(temperature=1.0)._losses(logits, torch.tensor([[0, 4]]))
    # ln(1 + e^-1) of two clusters, and ln 5 of five
    assert losses.tolist() == pytest.approx([0.31326, 1.60944], abs=1e-5)
    losses.sum().backward()
    assert logits.grad[0, 0, 2:].tolist() == [0, 0, 0]
    assert logits.grad.isfinite().all()


def test_a_lower_temperature_sharpens():
    logits, labels = torch.tensor([[[0.3, 0.1]]]), torch.tensor([[0]])
    # The right one is ahead by 0.2, divided by the temperature: ln(1 + e^-2), ln(1 + e^-0.2)
    losses = [float(pretext(temperature=value)._losses(logits, labels)) for value in (0.1, 1.0)]
    assert losses == pytest.approx([0.12693, 0.59814], abs=1e-5)


def test_hidden_voxels_are_not_seen_but_labelled():
    found, sample = pretext().eval(), batch()
    other = {**sample, "image": sample["image"] + 50 * sample["hidden"][:, None]}
    with torch.no_grad():
        assert torch.equal(found._logits(sample, sample["slices"]), found._logits(other, sample["slices"]))
        images = (sample["image"], other["image"])
        assert not torch.equal(*(found._labels(image, sample["slices"]) for image in images))


def test_hidden_voxels_are_a_learned_number_of_each_channel_on_request():
    found, sample = pretext(mask_value="token").eval(), batch()
    zeros = pretext().eval()
    with torch.no_grad():
        assert torch.equal(found._logits(sample, sample["slices"]), zeros._logits(sample, sample["slices"]))
        found.token[1] = 3.0
        image = torch.where(sample["hidden"][:, None], torch.tensor([0.0, 3.0])[:, None, None, None], sample["image"])
        expected = found.head(found.backbone.features(image), sample["slices"])
        assert torch.equal(found._logits(sample, sample["slices"]), expected)
    found(sample).backward()
    assert (found.token.grad != 0).all()


def test_constant_slices_count_unless_they_are_skipped():
    sample = batch()
    b, z = sample["slices"].nonzero()[0].tolist()
    sample["image"][b, :, z] = torch.tensor([4.0, -2.0])[:, None, None]  # a single value in each channel
    counted = int(sample["slices"].sum())
    for skip, number in ((False, counted), (True, counted - 1)):
        found = pretext(skip_constant=skip).eval()
        assert found.scores(sample)["score"][1] == number * len(SIZES)
        assert int(found._chosen(sample).sum()) == number


def test_a_batch_without_slices_that_count_has_no_loss():
    found, sample = pretext(skip_constant=True), batch()
    sample["image"].zero_()
    loss = found(sample)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all((one.grad == 0).all() for one in found.head.parameters())
    assert found.scores(sample)["score"] == (0.0, 0.0)


def test_labels_of_the_nearest_visible_slice_are_copied():
    labels = torch.tensor([[[4, 40], [5, 50], [6, 60], [7, 70], [8, 80]]]).expand(2, -1, -1)
    hidden = torch.tensor([[False, True, True, False, True], [True] * 5])
    found = _of_nearest_visible(labels, hidden, otherwise=torch.tensor([1, 2]))
    assert found[0].tolist() == [[4, 40], [4, 40], [7, 70], [7, 70], [7, 70]]
    assert found[1].tolist() == [[1, 2]] * 5  # nothing is visible
    middle = _of_nearest_visible(labels[:1], torch.tensor([[False, False, True, False, False]]), otherwise=labels[0, 0])
    assert middle[0, 2].tolist() == [5, 50]  # of two the one before


def test_scores_are_those_of_masked_slices_and_of_what_needs_no_learning():
    found, sample = pretext().eval(), batch(3)
    scores = means(found.scores(sample))
    labels = found._labels(sample["image"], torch.ones_like(sample["slices"])).unflatten(0, sample["slices"].shape)
    wanted = labels[sample["slices"]]
    logits = found._logits(sample, sample["slices"])
    copied = _of_nearest_visible(labels, sample["hidden"].any((2, 3)), otherwise=wanted[0])[sample["slices"]]
    assert scores["accuracy"] == scores["score"] == pytest.approx(float((logits.argmax(-1) == wanted).float().mean()))
    assert scores["accuracy of the nearest visible slice"] == pytest.approx(float((copied == wanted).float().mean()))
    # Most slices of the fits are in the clusters 1 of 3 and 4 of 5
    prior = (wanted == torch.tensor([1, 4])).float().mean()
    assert scores["accuracy of the class prior"] == pytest.approx(float(prior))
    assert scores["loss"] == pytest.approx(float(found(sample).detach()), rel=1e-5)
    shares = [torch.tensor([2, 8, 3]) / 13, torch.tensor([2, 2, 2, 2, 7]) / 15]  # one more for each cluster
    prior_losses = torch.stack([-shares[j][wanted[:, j]].log() for j in range(2)])
    assert scores["loss of the class prior"] == pytest.approx(float(prior_losses.mean()), rel=1e-5)
    assert scores["largest cluster"] == pytest.approx((7 / 10 + 6 / 10) / 2)
    assert 0 < scores["label entropy"] < 1


def test_loss_and_scores_come_from_one_pass_of_the_network():
    found, sample = pretext().eval(), batch(3)
    with torch.no_grad():
        loss, unlearnt, scores = found(sample), found.unlearnt(sample), found.scores(sample)
        passes = count_passes(found.backbone)
        assert found.judged(sample, unlearnt) == (loss, scores)
    assert set(passes.values()) == {1}


@pytest.mark.parametrize("slice_axis", [0, 2])
def test_a_masked_slice_of_which_nothing_is_hidden_is_its_own_nearest_visible_one(slice_axis):
    found, sample = pretext(slice_axis).eval(), batch(3, slice_axis)
    sample["hidden"].zero_()
    scores = means(found.scores(sample))
    assert scores["accuracy of the nearest visible slice"] == scores["accuracy of the nearest visible voxels"] == 1


def test_what_is_visible_of_masked_slices_tells_their_labels_where_no_slice_is_wholly_visible():
    found, sample = pretext().eval(), batch(3)
    sample["slices"].fill_(True)
    sample["hidden"].zero_()
    sample["hidden"][..., ::3] = True  # smooth crops: the voxel beside a hidden one is much like it
    scores = means(found.scores(sample))
    assert scores["accuracy of the nearest visible slice"] == scores["accuracy of the class prior"] < 0.7
    assert scores["accuracy of the nearest visible voxels"] > 0.9


def test_a_training_goes_on_with_the_same_clusterers_only():
    state = pretext().state_dict()
    pretext().load_state_dict(state)
    other = pretext()
    other.clusterers = Clusterers(other.clusterers._centres.flip(0), SIZES, other.clusterers.counts)
    with pytest.raises(CheckpointError, match="not those that the head was trained for"):
        other.load_state_dict(state)


def test_pictures_show_what_is_hidden_and_which_labels_are_told():
    found, sample = pretext().eval(), batch(2)
    scan, masked, told = found.pictures(sample).values()
    assert torch.equal(scan, sample["image"][0, 0])
    hidden = sample["hidden"][0]
    assert torch.equal(masked[~hidden], scan[~hidden])
    assert (masked[hidden] == scan.min()).all()
    assert told.shape == (len(SIZES), SIZE[0])
    slices = sample["slices"][0]
    assert (told[:, ~slices] == 0.5).all()
    one = {name: values[:1] for name, values in sample.items()}
    assert float(told[:, slices].mean()) == pytest.approx(means(found.scores(one))["accuracy"])


def test_it_learns_to_tell_the_labels_of_a_batch():
    found, sample = pretext(), batch()
    losses = trained(found, lambda _: sample, 60, rate=3e-3)
    assert losses[-1] < 0.05 < losses[0]
    scores = means(found.train().scores(sample))
    assert scores["accuracy"] == 1 > scores["accuracy of the class prior"]


def test_every_trained_parameter_gets_a_gradient():
    found = pretext(mask_value="token")
    found(batch()).backward()
    without = [name for name, parameter in found.named_parameters() if parameter.grad is None]
    assert all(name.startswith("backbone.heads") for name in without)


def test_what_never_changes_is_no_part_of_the_state():
    state = pretext().state_dict()
    assert {name for name in state if not name.startswith("backbone.")} == {
        "_extra_state",  # which clusterers, not themselves
        *(f"head.{layer}.{kind}" for layer in ("hidden.0", "last") for kind in ("weight", "bias")),
    }


@pytest.mark.parametrize("values", [{"head": "paper", "head_grid": 4}, {"temperature": 0}, {"mask": {"phi": 1}}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ValidationError):
        MaskedClustersConfig(**values)


@pytest.fixture
def stored(tmp_path):
    """Surroundings with six stored scans, a little larger than a crop."""
    crops = SmoothCrops((10, 12, 9))
    scans = []
    for number in range(6):
        folder = tmp_path / f"scan_{number}"
        image = crops.random(np.random.default_rng(number))
        store_module._write_case(folder, image, None, {"id": folder.name, "key": "", "inputs": []}, NO_LABELS)
        scans.append(StoredCase(folder.name, folder))
    return replace(surroundings(), scans=scans, cache=tmp_path / "cache")


TINY = {"num_clusterers": 3, "least_clusters": 3, "most_clusters": 5, "slices_per_cluster": 2}


@pytest.mark.parametrize("slice_axis", [0, 2])
def test_a_method_is_ready_once_its_clusterers_are_fitted(stored, slice_axis):
    told = []
    where = replace(stored, slice_axis=slice_axis, progress=lambda what, share: told.append(share))
    method = prepare(config(**TINY), where)
    found = method.build(small_network())
    assert told == [1 / 3, 2 / 3, 1.0]
    assert method.record["clusters"] == list(found.clusterers.sizes)
    assert all(0 < value <= 1 for value in method.record["label_entropy"])
    found(drawn(method, 2)).backward()
    again = prepare(config(**TINY), where)  # from the cache
    assert again.record == method.record
    assert len(told) == 3


def test_masks_that_could_hide_every_slice_are_refused(stored):
    with pytest.raises(ConfigError, match="chain of 8 masked slices can hide all 8 slices"):
        prepare(config(**TINY, mask={"chain_length": 8}), stored)


def test_fewer_slices_than_clusters_need_are_told_with_the_values_to_set(stored):
    # 6 scans x 8 slices are 48, 12 clusters of 4
    with pytest.raises(DataError, match=r"give 48\..*masked_clusters\.most_clusters=12"):
        prepare(config(crops_per_scan=1), stored)
