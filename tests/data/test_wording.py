from voxelseg.data.wording import counted, listed, some


def test_many_names_are_cut_short_with_how_many_more():
    assert some("abcde") == "a, b, c, d, e"
    assert some("abcdefg") == "a, b, c, d, e and 2 more"


def test_counts_agree_with_their_noun():
    assert counted(1, "class", "classes") == "1 class"
    assert counted(2, "class", "classes") == "2 classes"
    assert counted(9000, "step") == "9\u202f000 steps"


def test_names_are_listed_with_an_and_before_the_last():
    assert listed([]) == ""
    assert listed(["A"]) == "A"
    assert listed(["A", "B"]) == "A and B"
    assert listed(["A", "B", "C"]) == "A, B and C"
