import pytest

from voxelseg.data.dataset import Case, is_ct, patient_of


@pytest.mark.parametrize(
    ("case_id", "patient"),
    [
        ("sub-01_ses-2_T1w", "sub-01"),
        ("sub-control01", "sub-control01"),
        ("patient001_frame12", "patient001"),
        ("patient001", "patient001"),
        ("Patient-7_a", "Patient-7"),
        ("brats_2013_pat0005_1", "brats_2013_pat0005"),
        ("pat3_2", "pat3"),
        ("hippocampus_001", "hippocampus_001"),
        ("patients_12", "patients_12"),
        ("case_pat_1", "case_pat_1"),
        ("spatial1_2", "spatial1_2"),
        ("substance_sub-01", "substance_sub-01"),
    ],
)
def test_patient_named_by_a_case_id(case_id, patient):
    assert patient_of(case_id) == patient


def test_a_given_patient_goes_before_the_one_in_the_id():
    assert Case("patient001_frame12", ()).patient == "patient001"
    assert Case("patient001_frame12", (), patient="anna").patient == "anna"


def test_only_channels_called_ct_hold_hounsfield_units():
    assert is_ct(" ct ")
    assert not is_ct("PET/CT")
