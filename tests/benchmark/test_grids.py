import pytest
import torch

from voxelseg.benchmark.entrants import Entrant
from voxelseg.benchmark.grids import GRIDS, find_grid, grid_entrants
from voxelseg.benchmark.length import Length
from voxelseg.data.dataset import Case, Dataset
from voxelseg.data.labels import LabelClass, LabelScheme
from voxelseg.errors import ConfigError
from voxelseg.pretrain.methods import METHODS
from voxelseg.train.config import build_config
from voxelseg.train.run import build_network

LENGTH = Length(steps=1000)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    labels = LabelScheme((LabelClass("a", (1,), 1), LabelClass("b", (2,), 2)))
    return Dataset("Two", root, "msd", ("CT",), labels, (Case("c", (root / "c.nii.gz",), root / "l.nii.gz"),))


@pytest.mark.parametrize("name", GRIDS)
def test_every_contestant_of_every_grid_is_a_network_that_can_be_built_and_differs_from_the_others(name, dataset):
    entrants = grid_entrants(name, LENGTH)
    assert len(entrants) >= 2
    configs = set()
    for one in entrants:
        config = build_config([*LENGTH.settings(), *one.settings])
        with torch.device("meta"):
            build_network(one.model, dataset, config)
        assert one.pretrain is None or one.pretrain in METHODS
        configs.add((one.model, one.pretrain, config.model_dump_json()))
    assert len(configs) == len(entrants)


def test_the_published_number_of_moves_is_kept_whatever_the_length():
    # 1200 of 250,000 steps are 0.48 %: 12 of 2500; half of it 6, one and a half times it 18
    entrants = grid_entrants("e2enet_update_period", Length(steps=2500))
    assert [one.settings for one in entrants] == [
        ("sparse.update_every=6",),
        ("sparse.update_every=12",),
        ("sparse.update_every=18",),
        ("sparse.freeze_topology=true",),
    ]
    with pytest.raises(ConfigError, match=r"--grid e2enet_update_period: .* Give --steps"):
        grid_entrants("e2enet_update_period", Length(budget="3m"))
    # Of 300 steps 0.24 % are 0.72, and 0.48 % are 1.44: a move after each step, both
    with pytest.raises(ConfigError, match=r"with 300 steps each shares .* same number. Give more --steps"):
        grid_entrants("e2enet_update_period", Length(steps=300))


def test_another_network_may_take_the_place_of_the_papers():
    base = Entrant(name="any", model="mednext_s", settings=("model.width=8",))
    entrants = grid_entrants("mednext_resampling", LENGTH, [base])
    assert [(one.name, one.model, one.settings) for one in entrants] == [
        ("inverted", "mednext_s", ("model.width=8",)),
        ("standard", "mednext_s", ("model.width=8", "model.resampling=standard")),
    ]


@pytest.mark.parametrize(
    ("name", "bases", "message"),
    [
        ("uxnet_kernel", (), "unknown grid 'uxnet_kernel' .did you mean 'uxnet_kernels'"),
        ("logonet_local_global", (Entrant(name="a", model="unet"),), "compares networks of its own"),
        ("loss_weights", (Entrant(name="a", model="nnunet"),), "one network with options"),
        (
            "uxnet_kernels",
            (Entrant(name="a", model="uxnet", settings=("model.kernel_size=5",)),),
            "kernel_7: model.kernel_size: is given twice",
        ),
        ("loss_weights", (Entrant(name="a", model="unet"), Entrant(name="b", model="unet_s")), "--models names 2"),
    ],
)
def test_what_a_grid_cannot_take_is_refused(name, bases, message):
    with pytest.raises(ConfigError, match=message):
        grid_entrants(name, LENGTH, bases)


def test_a_grid_says_where_it_comes_from():
    assert find_grid("uxnet_kernels").source.endswith("Table 3")
