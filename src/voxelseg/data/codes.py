"""The kinds of problems that `voxelseg check` reports; docs/reference/checks.md shows this table."""

CODES: dict[str, tuple[str, str]] = {
    # files and lists of files
    "missing-image": ("error", "no image file of the case exists"),
    "missing-channel": ("error", "the file of a channel does not exist"),
    "missing-label": ("error", "the label map is not named or does not exist"),
    "duplicate-case": ("error", "two cases have one name, or a case has files with two suffixes"),
    "surplus-channel": ("error", "a case has files of more channels than the description names"),
    "shared-label": ("error", "two cases have the same label map"),
    "label-is-image": ("error", "a label map is also an image of the data set"),
    "unexpected-file": ("warning", "an image file is not named like those of a case"),
    "unlisted-case": ("warning", "image and label map exist, but dataset.json does not list them"),
    "case-count": ("warning", "the number of training cases is not the one in dataset.json"),
    "unused-list": ("warning", "a list of cases in a JSON file is not used"),
    "unused-column": ("remark", "a column or key of a file list has no meaning"),
    "unknown-patient-case": ("warning", "the table of patients names a case that is not there"),
    "unnamed-channels": ("remark", "nothing names the channels"),
    "undescribed-labels": ("remark", "nothing names the classes; they were read from the label maps"),
    # reading
    "unreadable": ("error", "a file is damaged, truncated or no scan"),
    "out-of-memory": ("error", "there is not enough memory to read the case"),
    "reader-died": ("error", "the process that read the case died"),
    "check-failed": ("error", "a fault in the check itself"),
    # grids
    "channel-count": ("error", "the files of a case hold more or fewer channels than described"),
    "shape-mismatch": ("error", "sizes differ between channels, or image and label map"),
    "spacing-mismatch": ("error or warning", "voxel sizes differ; a warning if by less than half a voxel in all"),
    "origin-mismatch": ("error or warning", "positions differ; a warning if by less than half a voxel"),
    "direction-mismatch": ("error or warning", "axes are turned; a warning if by less than half a voxel in all"),
    "sform-qform": ("warning", "a NIfTI header states two positions, or a damaged qform; the sform is used"),
    # images
    "non-finite": ("error", "an image or label map holds NaN or infinity"),
    "constant-image": ("error", "all voxels of a channel are equal"),
    "repeated-channel": ("warning", "two channels of a case have the same voxels"),
    "duplicate-image": ("error or warning", "two cases have the same image; a warning if both are of one patient"),
    "ct-not-negative": ("warning", "a CT scan has no negative values, so they are no Hounsfield units"),
    "ct-no-air": ("warning", "a CT scan has no values of air"),
    # label maps
    "no-foreground": ("error", "no label map of the data set shows any class"),
    "empty-label": ("warning", "a label map shows no class"),
    "class-never-occurs": ("warning", "no label map shows this class"),
    "unknown-label": ("error", "a label map holds values that are not described"),
    "label-channels": ("error", "a label map has several channels"),
    "label-not-integer": ("error", "a label map holds fractions"),
    "label-near-integer": ("warning", "a label map holds values next to whole numbers; they are rounded"),
    "label-float": ("remark", "a label map is stored as real numbers"),
    "label-outside-image": ("warning", "all classes lie where the image has its lowest value"),
    "left-right-flip": ("warning", "a case may be mirrored"),
    "left-right-names": ("warning", "classes called left and right lie the other way round in most cases"),
    # patients and folds
    "patient-in-folds": ("error", "cases of one patient are in several folds"),
    "patient-in-test": ("warning", "a patient is in the training and in the test set"),
    "split-file": ("error", "the data set's split file is wrong"),
    "wrong-folds": ("error", "the folds that cases ask for are impossible"),
    "no-held-out-case": ("error", "too few patients to hold one out"),
    "fewer-folds": ("remark", "there are fewer folds than usual"),
}
"""Code to its severity and what it means. In test cases, errors other than copies of training images are warnings."""
