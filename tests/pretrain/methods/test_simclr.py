import copy
from math import log

import pytest
import torch
from pretexts import drawn, means, prepared, small_pretext, surroundings, trained

from voxelseg.errors import ConfigError
from voxelseg.pretrain.methods import METHODS
from voxelseg.pretrain.methods.simclr import nt_xent

SETTINGS = {"embedding": 8}


def batches(seed=0, number=2):
    method = prepared("simclr", **SETTINGS)
    return lambda step: drawn(method, number, seed=seed + step)


def test_nt_xent_is_the_cross_entropy_of_the_other_crop_of_the_pair():
    embedded = torch.nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    logits = (embedded @ embedded.T / 0.1).masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf)
    for row, pair in enumerate((2, 3, 0, 1)):
        others = [float(logits[row, column].exp()) for column in range(4) if column != row]
        wanted = -log(float(logits[row, pair].exp()) / sum(others))
        assert float(nt_xent(logits)[row]) == pytest.approx(wanted, rel=1e-4)


def test_the_loss_is_that_of_the_cosines_of_all_crops():
    pretext, batch = small_pretext("simclr", **SETTINGS).eval(), batches()(0)
    with torch.no_grad():
        embedded = pretext._embedded(batch).embeddings
        logits = (embedded @ embedded.T / 0.1).fill_diagonal_(-torch.inf)
        assert float(pretext(batch)) == pytest.approx(float(nt_xent(logits).mean()), rel=1e-5)


def compared(pretext, batch):
    """Which crops each one is compared with."""
    with torch.no_grad():
        return (pretext._similarities(pretext._embedded(batch)) > -torch.inf).long().tolist()


def test_crops_are_compared_with_their_pair_and_with_other_scans_only():
    pretext, batch = small_pretext("simclr").eval(), batches(number=3)(0)
    batch["scan"] = torch.tensor([4, 5, 4])
    assert compared(pretext, batch) == [
        [0, 1, 0, 1, 1, 0],  # of scan 4: its pair and both of scan 5
        [1, 0, 1, 1, 1, 1],  # of scan 5: its pair and all four of scan 4
        [0, 1, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 1, 1, 0, 1],
        [0, 1, 1, 0, 1, 0],
    ]
    with torch.no_grad():
        by_chance = pretext.scores(batch)["accuracy by chance"]
    # Candidates of scan 4: its pair and two of 5; of scan 5: its pair and four of 4.
    assert by_chance == (pytest.approx(4 / 3 + 2 / 5), 6)


def test_a_batch_of_one_scan_has_no_loss_and_no_score():
    pretext, batch = small_pretext("simclr"), batches()(0)
    batch["scan"] = torch.tensor([4, 4])
    with torch.no_grad():
        assert pretext.eval().scores(batch)["score"] == (0, 0)
    loss = pretext.train()(batch)
    loss.backward()
    assert loss.detach() == 0
    assert all(parameter.grad.isfinite().all() for parameter in pretext.parameters() if parameter.requires_grad)


def test_a_single_scan_is_refused():
    entry = METHODS["simclr"]
    with pytest.raises(ConfigError, match=r"one scan to learn from.*held_out=0"):
        entry.prepare(entry.settings(), surroundings(num_scans=1))
    with pytest.raises(ConfigError, match=r"one scan held out.*held_out=0"):
        entry.prepare(entry.settings(), surroundings(num_held_out=1))
    entry.prepare(entry.settings(), surroundings(num_held_out=0))


def test_statistics_follow_training_alone():
    pretext = small_pretext("simclr", **SETTINGS).eval()
    with torch.no_grad():
        pretext(batches()(0))
        pretext.scores(batches()(0))
        assert int(pretext.standardise.updates) == 0
        pretext.train()(batches()(0))
    assert int(pretext.standardise.updates) == 1


def test_a_training_goes_on_from_its_saved_state_with_equal_losses():
    pretext = small_pretext("simclr", **SETTINGS)
    trained(pretext, batches(), 3)
    again = small_pretext("simclr", **SETTINGS)
    again.load_state_dict(copy.deepcopy(pretext.state_dict()))
    assert {"standardise.mean", "standardise.variance", "standardise.updates"} <= set(pretext.state_dict())
    assert trained(pretext, batches(10), 3) == trained(again, batches(10), 3)


def test_it_learns_to_tell_pairs_apart():
    pretext = small_pretext("simclr", **SETTINGS)
    batch = drawn(prepared("simclr", **SETTINGS), 4)
    losses = trained(pretext, lambda _: batch, 40, rate=3e-3)
    assert losses[-1] < losses[5]
    with torch.no_grad():
        scores = means(pretext.eval().scores(batch))
    assert set(scores) == {"score", "accuracy", "accuracy by brightness", "accuracy by chance"}
    assert scores["accuracy by chance"] == pytest.approx(1 / 7)  # the pair and 6 crops of other scans
    assert scores["accuracy"] > scores["accuracy by chance"]


def test_decoders_are_not_trained():
    pretext = small_pretext("simclr", **SETTINGS)
    pretext(batches()(0)).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in pretext.parameters())
    assert not any(parameter.requires_grad for parameter in pretext.backbone.decoder.parameters())


def test_a_single_sample_is_refused():
    entry = METHODS["simclr"]
    with pytest.raises(ConfigError, match=r"one sample in a batch.*plan\.batch_size"):
        entry.prepare(entry.settings(), surroundings(batch_size=1))
