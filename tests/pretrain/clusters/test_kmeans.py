import numpy as np
import pytest

from voxelseg.pretrain.clusters.kmeans import fit_kmeans, spread_centres
from voxelseg.pretrain.clusters.settings import ClusterConfig


def heaps(num_heaps=5, each=12, length=30):
    """Rows in heaps that lie far apart, heap by heap."""
    generator = np.random.default_rng(0)
    middles = generator.normal(0, 20, (num_heaps, 1, length))
    return (middles + generator.normal(0, 1, (num_heaps, each, length))).reshape(-1, length).astype(np.float32)


def test_clusters_are_the_heaps():
    centres, labels = fit_kmeans(heaps(), 5, ClusterConfig(start_slices_per_cluster=12), seed=1)
    grouped = labels.reshape(5, 12)
    assert (grouped == grouped[:, :1]).all()
    assert sorted(grouped[:, 0]) == [0, 1, 2, 3, 4]
    assert centres.dtype == np.float32
    np.testing.assert_allclose(centres[grouped[0, 0]], heaps()[:12].mean(axis=0), atol=0.5)  # of 12 rows of sd 1


def test_equal_seeds_give_equal_bits_and_others_do_not():
    rows = np.random.default_rng(0).normal(size=(80, 20)).astype(np.float32)
    first, again, other = (fit_kmeans(rows, 6, ClusterConfig(), seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_spread_centres_are_rows_of_all_heaps():
    rows = heaps()
    centres = spread_centres(rows, 5, np.random.RandomState(3))
    places = [int(np.flatnonzero((rows == centre).all(axis=1))[0]) for centre in centres]
    assert sorted(place // 12 for place in places) == [0, 1, 2, 3, 4]


def test_spread_centres_leave_no_more_distance_than_scikit_learn_s():
    from sklearn.cluster import kmeans_plusplus

    rows = np.random.default_rng(0).normal(size=(90, 8)).astype(np.float32)

    def left(centres):
        return float(((rows[:, None] - centres) ** 2).sum(-1).min(1).sum())

    ours = np.mean([left(spread_centres(rows, 10, np.random.RandomState(seed))) for seed in range(20)])
    theirs = np.mean([left(kmeans_plusplus(rows, 10, random_state=seed)[0]) for seed in range(20)])
    assert ours == pytest.approx(theirs, rel=0.05)


def test_rows_that_are_equal_are_not_chosen_twice_while_others_are_left():
    rows = np.repeat(heaps(num_heaps=4, each=1), 10, axis=0)
    centres = spread_centres(rows, 4, np.random.RandomState(0))
    assert len(np.unique(centres, axis=0)) == 4
