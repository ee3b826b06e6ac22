import json

import pytest
from typer.testing import CliRunner

from voxelseg import commands
from voxelseg.cli import app
from voxelseg.errors import ConfigError
from voxelseg.recipes import RECIPES


def shown(*arguments):
    done = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"}).invoke(app, ["recipes", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_recipes_are_a_table_with_one_line_each():
    lines = shown().splitlines()
    assert max(map(len, lines)) <= 100
    found = {line.split()[0]: line.split() for line in lines if line.split() and line.split()[0] in RECIPES}
    assert set(found) == set(RECIPES)
    # recipe, network, data, patch, steps, score
    assert found["mednext_s_k3_btcv"][1:] == ["mednext_s", "btcv", "128^3", "250,000", "83.90", "%"]
    assert found["mednext_l_k5_kits19"][3:] == ["128^3", "2", "x", "250,000", "90.71", "%"]
    assert found["uxnet_nnunet_feta21"][1:] == ["uxnet", "feta21", "planned", "250,000", "0.881"]
    assert found["uxnet_amos22"][1:] == ["uxnet", "amos22_ct", "96^3", "40,000"]


def test_one_recipe_is_shown_with_its_values_and_what_else_is_known():
    page = " ".join(shown("uxnet_amos22_finetuned").split())
    for text in (
        "plan.spacing_mm [2.0, 1.5, 1.5]",
        "0.900 Dice: Table 2, test scans",
        "Paper: 0.08. Code: 0.01, PyTorch's default. Other: --set train.weight_decay=0.01. Here the paper's.",
        "transfer.init a network to start from. Give --init",
        "voxelseg train DATA --out RUN --recipe uxnet_amos22_finetuned --init START",
    ):
        assert text in page
    assert "Printed scores" not in shown("uxnet_amos22")  # there are none


def test_recipes_are_json_for_machines():
    assert [one["name"] for one in json.loads(shown("--json"))] == list(RECIPES)
    one = json.loads(shown("logonet_btcv", "--json"))
    assert one["data"]["classes"][0] == "spleen"
    assert one["reported"][0] == {"metric": "Dice", "value": 0.854, "digits": 3, "where": one["reported"][0]["where"]}


def test_an_unknown_recipe_is_an_error_with_the_closest():
    with pytest.raises(ConfigError, match=r"did you mean 'logonet_btcv'"):
        commands.recipes("logonet_btvc")
