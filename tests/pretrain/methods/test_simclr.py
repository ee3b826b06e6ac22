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
from voxelseg.pretrain.methods import METHODS
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
        embedded, _ = pretext._embedded(batch)
        pretext.queue.copy_(kept)
        for filled in (0, 3, 6, 11):
            pretext.seen.fill_(filled)
            known = torch.cat((embedded, kept[:filled]))
            logits = embedded @ known.T / 0.1
            logits[range(4), range(4)] = -torch.inf
            assert float(pretext(batch)) == pytest.approx(float(nt_xent(logits).mean()), rel=1e-5)


def test_the_queue_takes_in_the_second_crops_and_forgets_the_oldest():
    pretext = small_pretext("simclr", **SETTINGS).train()
    taken = []
    for step in range(4):  # 2 embeddings each: the fourth step takes the place of the first
        with torch.no_grad():
            embedded, brightness = pretext._embedded(batches()(step))
            pretext(batches()(step))
        taken.append((embedded[2:], brightness[2:]))
    assert int(pretext.seen) == 8
    wanted = [taken[3], taken[1], taken[2]]
    torch.testing.assert_close(pretext.queue, torch.cat([one for one, _ in wanted]))
    torch.testing.assert_close(pretext.brightness, torch.cat([one for _, one in wanted]))


def test_more_embeddings_than_the_queue_holds_leave_the_last():
    pretext = small_pretext("simclr", **{**SETTINGS, "queue": 3}).train()
    with torch.no_grad():
        embedded, _ = pretext._embedded(batches(number=5)(0))
        pretext(batches(number=5)(0))
    torch.testing.assert_close(pretext.queue, embedded[-3:])


def test_an_embedding_that_overflowed_is_not_kept():
    pretext = small_pretext("simclr", **SETTINGS)
    pretext._take_in(torch.tensor([[1.0] * 8, [torch.nan] * 8]), torch.ones(2, 4))
    assert pretext.queue.isfinite().all()
    assert int(pretext.seen) == 2


def test_nothing_is_taken_in_outside_training():
    pretext = small_pretext("simclr", **SETTINGS).eval()
    with torch.no_grad():
        pretext(batches()(0))
        pretext.scores(batches()(0))
    assert int(pretext.seen) == 0


def test_a_training_goes_on_from_its_saved_state_with_equal_losses():
    pretext = small_pretext("simclr", **SETTINGS)
    trained(pretext, batches(), 3)
    again = small_pretext("simclr", **SETTINGS)
    again.load_state_dict(copy.deepcopy(pretext.state_dict()))
    assert {"queue", "brightness", "seen"} <= set(pretext.state_dict())
    assert trained(pretext, batches(10), 3) == trained(again, batches(10), 3)


def test_it_learns_to_tell_pairs_apart():
    pretext = small_pretext("simclr", **SETTINGS)
    batch = drawn(prepared("simclr", **SETTINGS), 4)
    losses = trained(pretext, lambda _: batch, 40, rate=3e-3)
    assert losses[-1] < losses[5]
    with torch.no_grad():
        scores = means(pretext.eval().scores(batch))
    assert set(scores) == {"score", "accuracy", "accuracy by brightness", "accuracy by chance"}
    assert scores["accuracy by chance"] == pytest.approx(1 / (7 + 6))  # 7 other crops and the queue
    assert scores["accuracy"] > scores["accuracy by chance"]


def test_decoders_are_not_trained():
    pretext = small_pretext("simclr", **SETTINGS)
    pretext(batches()(0)).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in pretext.parameters())
    assert not any(parameter.requires_grad for parameter in pretext.backbone.decoder.parameters())


@pytest.mark.parametrize(("scans", "queue"), [(1, 1), (9, 4), (20_000, 4096)])
def test_the_queue_holds_half_as_many_as_there_are_scans(scans, queue):
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
