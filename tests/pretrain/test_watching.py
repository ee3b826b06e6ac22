import math

import pytest
import torch
from torch import Tensor, nn

from voxelseg.nets import Network
from voxelseg.pretrain.crops import CropSource
from voxelseg.pretrain.methods.method import Pretext
from voxelseg.pretrain.watching import PretextLoss, WatchedCrops

CPU = torch.device("cpu")


class Identity(Network):
    """Features are the image."""

    def __init__(self):
        super().__init__([(1, 1, 1)], divisor=(1, 1, 1), in_channels=1)
        self.weight = nn.Parameter(torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        return self.weight * x


class Mean(Pretext):
    """The loss is the mean of all crops; scores count crops, and those of a mean above 0, which needs no network."""

    def __init__(self):
        super().__init__(Identity())
        self.sizes = []
        self.asked = 0

    def forward(self, batch):
        loss = self.backbone.features(batch["image"]).mean()
        self.parts = {"mean": loss.detach()}
        return loss

    def unlearnt(self, batch):
        self.asked += 1
        return {"above": batch["image"].flatten(1).mean(1) > 0}

    def judged(self, batch, unlearnt):
        number = len(batch["image"])
        self.sizes.append(number)
        return self(batch), {"score": (float(unlearnt["above"].sum()), number), "nothing": (0.0, 0)}


def draw(crops, generator):
    return {"image": torch.from_numpy(crops.random(generator))}


@pytest.fixture
def source(tiny_scans) -> CropSource:
    scans = list(tiny_scans.stored.values())[:3]
    return CropSource(scans=scans, crop_size=(4, 6, 5), batch_size=2, drawer=draw, seed=1)


def test_means_are_those_of_all_samples_and_the_same_each_time(source):
    pretext, watched = Mean(), WatchedCrops(source, count=4)
    assert list(watched.places) == [0, 1]  # batches of two
    loss, scores = watched(pretext, device=CPU)
    means = [float(source.sample(number)["image"].mean()) for number in range(4)]
    assert loss == pytest.approx(sum(means) / 4, abs=1e-6)
    assert scores["score"] == sum(mean > 0 for mean in means) / 4
    assert math.isnan(scores["nothing"])
    assert (loss, scores["score"]) == (watched(pretext, device=CPU)[0], watched(pretext, device=CPU)[1]["score"])
    assert not pretext.training
    assert pretext.sizes[:2] == [2, 2]


@pytest.mark.parametrize(("count", "num_patches", "batches"), [(4, 1, 1), (4, 2, 2), (4, None, 2), (3, None, 2)])
def test_only_whole_batches_are_looked_at(source, count, num_patches, batches):
    pretext = Mean()
    WatchedCrops(source, count=count)(pretext, device=CPU, num_patches=num_patches)
    assert pretext.sizes == [2] * batches  # a task may need more than one sample in a batch


def test_what_needs_no_learning_is_asked_once_of_each_batch(source):
    pretext, watched = Mean(), WatchedCrops(source, count=6)
    watched(pretext, device=CPU, num_patches=1)
    assert pretext.asked == 1
    first = watched(pretext, device=CPU)
    assert pretext.asked == 3
    again = watched(pretext, device=CPU)
    assert (pretext.asked, again[0], again[1]["score"]) == (3, first[0], first[1]["score"])
    anew = WatchedCrops(source, count=6)(pretext, device=CPU)  # as after an interruption
    assert (pretext.asked, anew[0], anew[1]["score"]) == (6, first[0], first[1]["score"])


def test_without_held_out_scans_there_is_nothing_to_look_at():
    assert not WatchedCrops(None, count=4).places


def test_the_loss_is_the_forward_pass_in_float32_and_its_parts_are_told(source):
    pretext = Mean()
    loss = PretextLoss(pretext)
    sample = {"image": source.sample(0)["image"][None]}
    found = loss(lambda batch: pretext(batch).half(), sample)
    assert found.dtype == torch.float32
    assert set(loss.parts) == {"mean"}
    assert loss.network(pretext) is pretext.backbone


def test_the_score_is_the_method_s_own_if_it_is_a_number():
    loss = PretextLoss(Mean())
    assert loss.score({"score": 0.5, "accuracy": 0.9}) == 0.5
    assert loss.score({"score": math.nan}) is None
    assert loss.score({}) is None
