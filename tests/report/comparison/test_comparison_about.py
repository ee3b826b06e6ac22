import math

from scored import contestants, evaluation

from voxelseg.compare.contestants import Contestant
from voxelseg.report.comparison.about import counts_section, provenance_section, rules_section, settings_section


def alone(name, scores, **more):
    return Contestant(name=name, runs={"0": evaluation(scores)}, **more)


def test_missing_and_undefined_cases_are_counted_and_named(make_material):
    whole = {f"c{place}": (0.5, 0.6) for place in range(6)}
    undefined = {**whole, "c0": (math.nan, math.nan)}
    lacking = {case: scores for case, scores in undefined.items() if case != "c3"}
    failed = Contestant(name="z", runs={}, fault="diverged")
    material = make_material([alone("x", undefined), alone("y", lacking), failed], missing="leave-out")
    table = counts_section(material).tables[0]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["x"] == ["1", "6", "0", "1 (c0)", "no"]
    assert rows["y"] == ["1", "5", "1 (c3)", "1 (c0)", "no"]
    assert rows["z"] == ["0", "0", "–", "–", "diverged"]
    assert "All numbers of Dice are of 4 cases. Left out: 2 (c0, c3)." in table.hint


def test_classes_that_some_cases_lack_are_counted_by_class(make_material, material):
    scores = {f"c{place}": (0.5, math.nan if place < 2 else 0.6) for place in range(6)}
    tables = counts_section(make_material([alone("x", scores), alone("y", scores)])).tables
    assert [cell.text for cell in tables[1].rows[1]] == ["spleen", "4", "2", "0", "0"]
    assert len(counts_section(material).tables) == 1


def test_notes_of_contestants_are_shown_with_their_names(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, notes=("Left out: x.",))
    assert "a: Left out: x." in counts_section(make_material(found)).points


def test_what_differs_in_the_settings_is_apart_from_what_is_the_same(make_material):
    found = [
        Contestant(
            name=one.name,
            runs=one.runs,
            settings={"model": one.name, "seed": 1, "config": {"train": {"lr": 0.1}}, "fingerprint": {"a": 1}},
        )
        for one in contestants({"unet": 0.8, "uxnet": 0.7})
    ]
    differing, same = settings_section(make_material(found)).tables
    assert [[cell.text for cell in row] for row in differing.rows] == [["model", "unet", "uxnet"]]
    assert [[cell.text for cell in row] for row in same.rows] == [["config.train.lr", "0.1"]]


def test_nothing_known_of_settings_is_no_section(material):
    assert settings_section(material) is None


def test_every_column_is_defined_with_its_source(material):
    section = rules_section(material)
    facts = dict(section.facts)
    assert facts["Dice"].startswith("higher is better; exactly one mask empty: 0.")
    assert any("Wilcoxon" in one for one in section.points)


def test_the_command_and_the_versions_are_shown(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, settings={"voxelseg": "0.1.0", "command": "voxelseg train X"})
    section = provenance_section(make_material(found, command="voxelseg compare a b"))
    assert section.command == "voxelseg compare a b"
    assert section.facts[0] == ("a", "Command: voxelseg train X; voxelseg: 0.1.0")
    assert "scores.csv" in section.remarks[0]
