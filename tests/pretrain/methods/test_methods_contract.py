"""What every pretext task promises. Masked clusters, which needs scans to be clustered, has its own tests."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from pretexts import SmoothCrops, count_passes, drawn, prepared, small_pretext

from voxelseg.nets.parts import PARTS
from voxelseg.pretrain.methods import METHODS

SIZE = (16, 20, 16)
SETTINGS = {
    "simmim": {"cube": 8},
    "rubik": {},
    "rubik-cls": {"permutations": 5, "mask": 0.3},
    "simclr": {},
    "mae": {"block": 8},
}


def method(name):
    return prepared(name, SIZE, **SETTINGS[name])


def pretext(name):
    return small_pretext(name, SIZE, **SETTINGS[name])


def global_states():
    return torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state())  # noqa: NPY002


def test_all_methods_but_masked_clusters_are_looked_at_here():
    assert set(METHODS) == {*SETTINGS, "masked-clusters"}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_say_what_each_field_means_and_know_no_others(name):
    settings = METHODS[name].settings
    assert all(field.description for field in settings.model_fields.values())
    with pytest.raises(ValueError, match="Extra inputs"):
        settings(unheard_of=1)
    with pytest.raises(ValueError, match="frozen"):
        setattr(settings(), next(iter(settings.model_fields)), 1)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_sample_follows_from_its_generator_and_the_drawer_can_go_to_another_process(name):
    drawer = pickle.loads(pickle.dumps(method(name).drawer))
    before = global_states()
    first, again, other = (drawer(SmoothCrops(SIZE), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert global_states() == before
    assert first.keys() == other.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    assert all(first[key].shape == other[key].shape for key in first)


@pytest.mark.parametrize("name", SETTINGS)
def test_fresh_weights_follow_from_torchs_generator_and_loss_and_scores_draw_nothing(name):
    one, two, batch = pretext(name), pretext(name), drawn(method(name), 2, SIZE)
    state = one.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in two.state_dict().items())
    before = global_states()
    one(batch).backward()
    one.eval()
    with torch.no_grad():
        one.scores(batch)
        one.pictures(batch)
    assert global_states() == before


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loss_is_a_finite_scalar_and_its_parts_are_detached_scalars(name):
    task = pretext(name)
    loss = task(drawn(method(name), 2, SIZE))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert task.parts
    assert all(part.shape == () and not part.requires_grad for part in task.parts.values())


@pytest.mark.parametrize("name", SETTINGS)
def test_exactly_what_the_method_says_is_trained_gets_a_gradient(name):
    task = pretext(name)
    assert method(name).record["trained"] in PARTS
    task(drawn(method(name), 2, SIZE)).backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in task.parameters())


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_sums_and_counts_with_a_score_among_them(name):
    with torch.no_grad():
        scores = pretext(name).eval().scores(drawn(method(name), 2, SIZE))
    assert "score" in scores
    assert len(scores) > 2
    for total, count in scores.values():
        assert math.isfinite(total)
        assert count > 0


@pytest.mark.parametrize("name", SETTINGS)
def test_loss_and_scores_come_from_one_pass_of_the_network(name):
    task, batch = pretext(name).eval(), drawn(method(name), 2, SIZE)
    with torch.no_grad():
        loss, unlearnt, scores = task(batch), task.unlearnt(batch), task.scores(batch)
        passes = count_passes(task.backbone)
        assert task.judged(batch, unlearnt) == (loss, scores)
    assert set(passes.values()) == {1}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_copy_with_the_same_state_goes_on_alike(name):
    task, batch = pretext(name), drawn(method(name), 2, SIZE)
    task(batch).backward()
    twin, again = copy.deepcopy(task), pretext(name)
    again.load_state_dict(task.state_dict())
    assert task(batch).detach() == twin(batch).detach() == again(batch).detach()


@pytest.mark.parametrize("name", SETTINGS)
def test_half_precision_gives_a_loss_in_single(name):
    task = pretext(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task(drawn(method(name), 2, SIZE))
        with torch.no_grad():
            task.eval().scores(drawn(method(name), 2, SIZE))
    assert loss.dtype == torch.float32
    assert loss.isfinite()
