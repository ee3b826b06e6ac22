import dataclasses
import json

import pytest
import torch

from voxelseg.errors import ConfigError
from voxelseg.nets import Network, create_model
from voxelseg.nets.baselines.monai_dints import path_ends

U_SHAPED = (  # paths of two levels: 0 to 0, 1 to 0, 0 to 1, 1 to 1
    (1, -1, 2, -1),  # level 0 stays and goes down
    (0, -1, -1, 3),  # both stay
    (4, 1, -1, -1),  # both lead to level 0
)


def tiny(**options: object) -> Network:
    torch.manual_seed(0)
    return create_model(
        "dints", **{"in_channels": 1, "num_classes": 2, "width": 4, "levels": 2, "blocks": 3, **options}
    )


def test_the_whole_search_space_has_the_printed_size():
    with torch.device("meta"):
        model = create_model("dints", in_channels=1, num_classes=14)
    assert sum(parameter.numel() for parameter in model.parameters()) == 74_127_278  # 74.1 M in print


def test_paths_are_numbered_as_in_monai():
    assert path_ends(3) == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2)]
    space = tiny(levels=3, blocks=1).network.dints_space
    assert list(zip(space.arch_code2in, space.arch_code2out, strict=True)) == path_ends(3)


@pytest.mark.parametrize("halved", [True, False])
@pytest.mark.parametrize("architecture", [None, U_SHAPED])
def test_networks_of_any_architecture_keep_the_size_and_reach_every_cell(architecture, halved):
    model = tiny(in_channels=3, architecture=architecture, halved=halved).train()
    assert model.divisor == ((4, 4, 4) if halved else (2, 2, 2))
    size = tuple(factor * step for factor, step in zip((3, 1, 2), model.divisor, strict=True))
    logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 2, *size)
    logits.square().mean().backward()
    unreached = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    stems = ("network.stem_down.1", "network.stem_up.1")  # no path begins or ends at level 1
    assert unreached == {key for key in model.state_dict() if architecture and key.startswith(stems)}


def test_only_the_paths_and_operations_of_the_architecture_exist():
    space = tiny(architecture=U_SHAPED).network.dints_space
    kinds = {key: [type(operation).__name__ for operation in cell.op.ops] for key, cell in space.cell_tree.items()}
    skip, dense, planes = "_IdentityWithRAMCost", "_ActiConvNormBlockWithRAMCost", "_P3DActiConvNormBlockWithRAMCost"
    assert kinds == {
        "(0, 0)": [dense],
        "(0, 2)": [planes],
        "(1, 0)": [skip],
        "(1, 3)": [planes],
        "(2, 0)": [planes],
        "(2, 1)": [dense],
    }
    assert all(len(cell.op.ops) == 5 for cell in tiny().network.dints_space.cell_tree.values())


def test_nothing_is_printed_and_the_config_survives_json(capsys):
    model = tiny(architecture=U_SHAPED)
    again = create_model("dints", **json.loads(json.dumps(dataclasses.asdict(model.config))))
    assert again.config == model.config
    assert capsys.readouterr().out == ""


def test_the_encoder_is_the_grid_and_what_leads_to_it():
    model = tiny()
    encoding = {id(parameter) for parameter in model.encoder_parameters()}
    names = {key.split(".")[1] for key, parameter in model.named_parameters() if id(parameter) in encoding}
    assert names == {"stem_down", "dints_space"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 1}, "at least 2 of each"),
        ({"architecture": 3}, "a list of numbers for each block"),
        ({"architecture": [1, 2]}, "a list of numbers for each block"),
        ({"blocks": 2, "architecture": U_SHAPED}, r"of 3 blocks with \[4\] numbers: expected 2 .* with 4"),
        ({"levels": 3, "architecture": U_SHAPED}, r"expected 3 \(blocks\) with 7"),
        ({"architecture": (*U_SHAPED[:2], (5, 1, -1, -1))}, "numbers from -1 to 4"),
        ({"architecture": (*U_SHAPED[:2], (1, -1, -1, -1))}, r"block 2: its paths begin at levels \[0\].*\[0, 1\]"),
        ({"architecture": ((1, -1, -1, -1), *U_SHAPED[1:])}, r"block 1: its paths begin at levels \[0, 1\].*\[0\]"),
        ({"architecture": ((-1, -1, -1, -1), *U_SHAPED[1:])}, r"block 0: its paths begin at levels \[\]"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)
