import copy
import os
import subprocess
import sys
from math import log
from pathlib import Path

import pytest
import torch
from pretexts import drawn, means, prepared, small_pretext, surroundings, trained

from voxelseg.errors import ConfigError
from voxelseg.pretrain.methods import METHODS, simclr
from voxelseg.pretrain.methods.simclr import nt_xent

SETTINGS = {"queue": 6, "embedding": 8}


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


def test_the_loss_compares_with_the_batch_and_the_filled_part_of_the_queue():
    pretext, batch = small_pretext("simclr", **SETTINGS).eval(), batches()(0)
    kept = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    with torch.no_grad():
        embedded = pretext._embedded(batch).embeddings
        pretext.queue.copy_(kept)
        for filled in (0, 3, 6):
            pretext.queue_scans[:filled] = 7
            known = torch.cat((embedded, kept[:filled]))
            logits = embedded @ known.T / 0.1
            logits[range(4), range(4)] = -torch.inf
            assert float(pretext(batch)) == pytest.approx(float(nt_xent(logits).mean()), rel=1e-5)


def test_the_queue_takes_in_the_second_crops_and_forgets_the_oldest():
    pretext = small_pretext("simclr", **SETTINGS).train()
    taken = []
    for step in range(4):  # 2 embeddings each: the fourth step takes the place of the first
        with torch.no_grad():
            crops = pretext.eval()._embedded(batches()(step))
            pretext.train()(batches()(step))
        taken.append([values[2:] for values in crops])
    assert int(pretext.taken_in) == 8
    wanted = [taken[3], taken[1], taken[2]]
    kept = (pretext.queue, pretext.queue_brightness, pretext.queue_scans)
    for values, parts in zip(kept, zip(*wanted, strict=True), strict=True):
        torch.testing.assert_close(values, torch.cat(parts))
    assert pretext.queue_scans.tolist() == [3000, 3001, 1000, 1001, 2000, 2001]


def test_more_embeddings_than_the_queue_holds_leave_the_last():
    pretext = small_pretext("simclr", **{**SETTINGS, "queue": 3}).train()
    with torch.no_grad():
        embedded = pretext.eval()._embedded(batches(number=5)(0)).embeddings
        pretext.train()(batches(number=5)(0))
    torch.testing.assert_close(pretext.queue, embedded[-3:])


def test_an_embedding_that_overflowed_is_not_kept():
    pretext = small_pretext("simclr", **SETTINGS)
    embeddings = torch.tensor([[1.0] * 8, [torch.nan] * 8])
    pretext._take_in(simclr._Crops(embeddings, torch.ones(2, 4), torch.tensor([5, 6])))
    assert pretext.queue.isfinite().all()
    assert pretext.queue_scans.tolist() == [5] + 5 * [simclr.NO_SCAN]
    assert int(pretext.taken_in) == 2


def compared(pretext, batch):
    """Which of the batch and the queue each crop is compared with."""
    with torch.no_grad():
        return (pretext._similarities(pretext._embedded(batch)) > -torch.inf).long().tolist()


def test_crops_are_compared_with_their_pair_and_with_other_scans_only():
    pretext, batch = small_pretext("simclr", queue=3).eval(), batches(number=3)(0)
    batch["scan"] = torch.tensor([4, 5, 4])
    pretext.queue_scans[:] = torch.tensor([5, 9, simclr.NO_SCAN])
    assert compared(pretext, batch) == [
        [0, 1, 0, 1, 1, 0, 1, 1, 0],  # of scan 4: its pair, both of scan 5, and those of 5 and 9 in the queue
        [1, 0, 1, 1, 1, 1, 0, 1, 0],  # of scan 5: its pair, all four of scan 4, and that of 9
        [0, 1, 0, 0, 1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1, 0, 1, 1, 0],
        [1, 1, 1, 1, 0, 1, 0, 1, 0],
        [0, 1, 1, 0, 1, 0, 1, 1, 0],
    ]
    with torch.no_grad():
        by_chance = pretext.scores(batch)["accuracy by chance"]
    # Candidates of scan 4: its pair, two of 5, two of the queue; of scan 5: its pair, four of 4, one of the queue.
    assert by_chance == (pytest.approx(4 / 5 + 2 / 6), 6)


def test_a_batch_of_one_scan_with_an_empty_queue_has_no_loss_and_no_score():
    pretext, batch = small_pretext("simclr", queue=2), batches()(0)
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


def test_nothing_is_taken_in_outside_training():
    pretext = small_pretext("simclr", **SETTINGS).eval()
    with torch.no_grad():
        pretext(batches()(0))
        pretext.scores(batches()(0))
    assert int(pretext.taken_in) == 0


def test_a_training_goes_on_from_its_saved_state_with_equal_losses():
    pretext = small_pretext("simclr", **SETTINGS)
    trained(pretext, batches(), 3)
    again = small_pretext("simclr", **SETTINGS)
    again.load_state_dict(copy.deepcopy(pretext.state_dict()))
    assert {"queue", "queue_brightness", "queue_scans", "taken_in"} <= set(pretext.state_dict())
    assert trained(pretext, batches(10), 3) == trained(again, batches(10), 3)


def test_it_learns_to_tell_pairs_apart():
    pretext = small_pretext("simclr", **SETTINGS)
    batch = drawn(prepared("simclr", **SETTINGS), 4)
    losses = trained(pretext, lambda _: batch, 40, rate=3e-3)
    assert losses[-1] < losses[5]
    with torch.no_grad():
        scores = means(pretext.eval().scores(batch))
    assert set(scores) == {"score", "accuracy", "accuracy by brightness", "accuracy by chance"}
    # The pair, 6 crops of other scans, and of the queue, which holds scans 0 to 3 and once more 2 and 3, 5 or 4.
    assert scores["accuracy by chance"] == pytest.approx((1 / 12 + 1 / 11) / 2)
    assert scores["accuracy"] > scores["accuracy by chance"]


def test_decoders_are_not_trained():
    pretext = small_pretext("simclr", **SETTINGS)
    pretext(batches()(0)).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in pretext.parameters())
    assert not any(parameter.requires_grad for parameter in pretext.backbone.decoder.parameters())


@pytest.mark.parametrize(("scans", "queue"), [(2, 2), (9, 9), (20_000, 4096)])
def test_the_queue_holds_as_many_as_there_are_scans(scans, queue):
    entry = METHODS["simclr"]
    assert entry.prepare(entry.settings(), surroundings(num_scans=scans)).record["queue"] == queue


def test_a_single_sample_without_a_queue_is_refused():
    pretext = small_pretext("simclr", queue=0)
    with pytest.raises(ConfigError, match=r"simclr\.queue=0 with one sample"):
        pretext(drawn(prepared("simclr", queue=0), 1))
    pretext(drawn(prepared("simclr", queue=0), 2))


@pytest.mark.slow
def test_two_processes_have_the_loss_the_gradients_and_the_queue_of_one_with_the_whole_batch(tmp_path):
    script = Path(__file__).with_name("contrast_together.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for command in ([sys.executable], torchrun):
        subprocess.run([*command, script, tmp_path], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    alone, together = (torch.load(tmp_path / f"{count}.pt") for count in (1, 2))
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-6, msg=name)
