import numpy as np
import pytest

from voxelseg.data import labels as labels_module
from voxelseg.data.labels import NO_LABELS, LabelClass, LabelScheme, parse_labels
from voxelseg.errors import DataError

REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def test_msd_and_nnunet_directions_mean_the_same():
    msd = parse_labels({"0": "background", "2": "tumour", "1": "liver"})
    nnunet = parse_labels({"background": 0, "tumour": 2, "liver": [1]})
    assert msd == nnunet
    assert msd.names == ("liver", "tumour")
    assert msd.num_outputs == 3


def test_values_may_have_gaps_and_background_may_be_left_out():
    scheme = parse_labels({"liver": 4, "aorta": 300})
    assert scheme.known_values == {0, 4, 300}
    assert scheme.dtype is np.uint16
    assert scheme.encode(np.array([0, 4, 300, 7, -2, 301])).tolist() == [0, 1, 2, 0, 0, 0]
    assert scheme.decode(np.eye(3)[:, None, None, :]).tolist() == [[[0, 4, 300]]]


def test_ignore_is_encoded_as_minus_one_and_no_class():
    scheme = parse_labels({"background": 0, "liver": 1, "ignore": 2})
    assert (scheme.names, scheme.ignore, scheme.num_outputs) == (("liver",), 2, 2)
    assert scheme.encode(np.array([[0, 1], [2, 1]], np.uint8)).tolist() == [[0, 1], [-1, 1]]


def test_regions_are_independent_outputs_painted_in_order():
    scheme = parse_labels(REGIONS, regions_class_order=[1, 2, 3])
    assert scheme.names == ("whole", "core", "enhancing")
    assert (scheme.has_regions, scheme.num_outputs) == (True, 3)
    outputs = np.array([[0.9, 0.9, 0.9, 0.1], [0.2, 0.8, 0.9, 0.1], [0.1, 0.3, 0.7, 0.1]])[:, None, None, :]
    assert scheme.decode(outputs).tolist() == [[[1, 2, 3, 0]]]
    encoded = scheme.encode(np.array([0, 1, 2, 3]))
    assert scheme.region_table[encoded].tolist() == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_mask_of_a_region_holds_all_its_values():
    scheme = parse_labels(REGIONS, regions_class_order=[1, 2, 3])
    assert scheme.mask(np.array([0, 1, 2, 3]), "core").tolist() == [False, False, True, True]
    with pytest.raises(DataError, match=r"no class 'liver'.*whole, core, enhancing"):
        scheme.mask(np.zeros(1), "liver")


def test_json_form_comes_back_equal():
    scheme = parse_labels({**REGIONS, "ignore": 4}, regions_class_order=[1, 2, 3])
    assert LabelScheme.from_dict(scheme.to_dict()) == scheme


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ({}, "must be an object"),
        ({"background": 0}, "no foreground class"),
        ({"background": 0, "liver": "1"}, "integer from 0"),
        ({"background": 0, "liver": 1.0}, "integer from 0"),
        ({"background": 0, "liver": True}, "integer from 0"),
        ({"background": 0, "liver": -1}, "integer from 0"),
        ({"background": 0, "liver": []}, "integer from 0"),
        ({"background": 0, "liver": [1, None]}, "integer from 0"),
        ({"background": 0, "liver": 70000}, "from 1 to 65535"),
        ({"background": 1, "liver": 2}, "background must be 0"),
        ({"liver": 0, "spleen": 1}, "background must be 0"),
        ({"0": "liver", "1": "spleen"}, "background must be 0"),
        ({"background": 0, "liver": 1, "spleen": 1}, "both 'liver' and 'spleen'"),
        ({"0": "background", "1": "liver", "2": "liver"}, "twice"),
        ({"0": "background", "1": "liver", "01": "spleen"}, "twice"),
        ({"background": 0, "liver": 2, "ignore": 1}, "higher than every other label"),
        ({"background": 0, "liver": 2, "ignore": 2}, "higher than every other label"),
        ({"background": 0, "liver": 2, "ignore": [3, 4]}, "one integer"),
        ({"background": 0, "liver": [0, 1]}, "from 1 to 65535"),
    ],
)
def test_wrong_descriptions_are_refused(labels, words):
    with pytest.raises(DataError, match=words):
        parse_labels(labels, regions_class_order=[1])


@pytest.mark.parametrize("order", [None, [1, 2], [1, 2, 9], ["1", "2", "3"], 3])
def test_regions_need_an_order_of_known_values(order):
    with pytest.raises(DataError, match="regions_class_order"):
        parse_labels(REGIONS, regions_class_order=order)


def test_regions_are_written_as_a_value_of_their_own():
    with pytest.raises(DataError, match=r"'enhancing' holds the values \[3\] but would be written as 1"):
        parse_labels(REGIONS, regions_class_order=[3, 2, 1])


def test_a_region_is_not_painted_over_by_one_that_holds_it():
    with pytest.raises(DataError, match="'whole' would be painted over all of 'enhancing'"):
        parse_labels({"enhancing": 3, "whole": [1, 2, 3]}, regions_class_order=[3, 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_encoding_is_the_same_in_parts_and_for_every_type(monkeypatch, dtype):
    scheme = parse_labels({"background": 0, "liver": 2, "ignore": 5})
    label = np.arange(30).reshape(2, 3, 5).transpose(2, 0, 1).astype(dtype) % 7
    expected = np.select([label == 2, label == 5], [1, -1], 0)
    np.testing.assert_array_equal(scheme.encode(label), expected)
    monkeypatch.setattr(labels_module, "_AT_ONCE", 4)
    np.testing.assert_array_equal(scheme.encode(label), expected)


def test_an_ignore_label_of_255_does_not_overflow_its_type():
    scheme = parse_labels({"background": 0, "liver": 1, "ignore": 255})
    assert scheme.encode(np.array([0, 1, 255, 254], np.uint8)).tolist() == [0, 1, -1, 0]


def test_the_first_of_equal_outputs_wins():
    scheme = parse_labels({"liver": 1, "spleen": 2})
    outputs = np.random.default_rng(0).integers(0, 3, (3, 4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(scheme.decode(outputs), outputs.argmax(axis=0))


def test_class_names_are_unique():
    with pytest.raises(DataError, match="not unique"):
        LabelScheme((LabelClass("liver", (1,), 1), LabelClass("liver", (2,), 2)))


def test_decode_refuses_another_number_of_outputs():
    with pytest.raises(DataError, match="3 outputs for 2"):
        parse_labels({"liver": 1}).decode(np.zeros((3, 1, 1, 1)))


def test_scans_without_labels_have_a_scheme_of_no_class():
    assert (NO_LABELS.names, NO_LABELS.known_values, NO_LABELS.has_regions) == ((), {0}, False)
    assert LabelScheme.from_dict(NO_LABELS.to_dict()) == NO_LABELS
