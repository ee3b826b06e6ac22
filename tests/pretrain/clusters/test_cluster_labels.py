import copy

import numpy as np
import pytest
import torch

from voxelseg.errors import DataError
from voxelseg.pretrain.clusters.labels import Clusterers


def clusterers():
    """Two clusterers of slices with two values: three centres on the diagonal, and two on the first axis."""
    centres = torch.tensor([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0], [0.0, 0.0], [3.0, 0.0]])
    return Clusterers(centres, [3, 2], torch.tensor([1, 6, 1, 4, 4]))


def test_each_clusterer_gives_its_nearest_centre():
    # (3.5, 3): 4, 4 is 0.5^2 + 1 away, 2, 2 is 1.5^2 + 1; and 3, 0 is nearer than 0, 0
    assert clusterers().labels(torch.tensor([[0.5, 0.5], [3.5, 3.0]])).tolist() == [[0, 0], [2, 1]]


def test_of_equally_near_centres_the_first_is_taken():
    assert clusterers().labels(torch.tensor([[1.0, 1.0], [1.5, 0.0]])).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("shift", [0.0, 100.0])  # a large mean costs digits of the distances
def test_labels_are_scikit_learn_s_predictions(shift):
    from sklearn.cluster import MiniBatchKMeans

    generator = np.random.default_rng(0)
    rows = (generator.normal(0, 1, (400, 96)).cumsum(axis=1) + shift).astype(np.float32)
    models = [
        MiniBatchKMeans(k, n_init=1, batch_size=256, random_state=k).fit(rows[generator.permutation(400)[:300]])
        for k in (3, 17, 40)
    ]
    centres = torch.cat([torch.from_numpy(model.cluster_centers_) for model in models])
    found = Clusterers(centres, [3, 17, 40], torch.ones(60, dtype=torch.int64)).labels(torch.from_numpy(rows))
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found, np.stack([model.predict(rows) for model in models], axis=1))


def test_labels_do_not_change_under_autocast():
    generator = torch.Generator().manual_seed(0)
    rows, centres = torch.randn(200, 30, generator=generator), torch.randn(25, 30, generator=generator)
    found = Clusterers(centres, [25], torch.ones(25))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = found.labels(rows)
    assert torch.equal(halved, found.labels(rows))


def test_slices_of_another_size_are_refused():
    with pytest.raises(DataError, match="slices of 3 values, but the clusterers were fitted on slices of 2"):
        clusterers().labels(torch.zeros(1, 3))


def test_most_common_clusters_and_balance_come_from_the_fits():
    found = clusterers()
    assert found.most_common().tolist() == [1, 0]  # 6 of 8 slices; of 4 and 4 the first
    assert found.largest_shares().tolist() == [0.75, 0.5]
    # -(0.75 ln 0.75 + 0.25 ln 0.125) = 0.7356 of ln 3 = 1.0986; two halves have the most that two can
    assert found.entropies().tolist() == pytest.approx([0.7356 / 1.0986, 1.0], abs=1e-4)


def test_frequencies_count_one_more_for_each_cluster():
    # (1, 6, 1) becomes (2, 7, 2) of 11; (4, 4) becomes (5, 5) of 10
    found = clusterers().log_frequencies(torch.tensor([[1, 0], [2, 1]]))
    assert found.exp().flatten().tolist() == pytest.approx([7 / 11, 0.5, 2 / 11, 0.5])


def test_a_copy_shares_what_never_changes():
    found = clusterers()
    assert copy.deepcopy({"clusterers": found})["clusterers"] is found
