from scored import contestants

from voxelseg.report.comparison.volumes import volumes_section

CLASSES = ("liver", "spleen", "pancreas")


def test_few_classes_say_nothing_of_sizes(material):
    assert volumes_section(material) is None


def test_volumes_are_those_of_the_references(make_material):
    found = contestants({"a": 0.8, "b": 0.7}, classes=CLASSES)
    section = volumes_section(make_material(found))
    assert [one.name for one in section.drawings] == ["volume_scores", "volume_differences"]
    assert section.drawings[1].title == "a minus b by volume of the class"
    assert "2" in section.drawings[0].text  # 2 ml to 6 ml, of 2000, 4000 and 6000 mm3
    assert "6" in section.drawings[0].text


def test_one_contestant_has_no_difference(make_material):
    section = volumes_section(make_material(contestants({"a": 0.8}, classes=CLASSES)))
    assert [one.name for one in section.drawings] == ["volume_scores"]
