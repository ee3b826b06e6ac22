import pytest
from pydantic import ValidationError

from voxelseg.pretrain.clusters.settings import ClusterConfig


def test_defaults_are_the_paper_s_clusterers_with_minibatches_of_more_slices_than_clusters():
    config = ClusterConfig()
    assert (config.num_clusterers, config.least_clusters, config.most_clusters) == (80, 80, 500)
    assert (config.scan_share, config.max_iter, config.num_starts) == (0.1, 350, 3)
    assert config.batch_size(100) == 1024
    assert config.batch_size(500) == 2000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"most_clusters": 40}, "most_clusters 40 is below least_clusters 80"),
        ({"most_slices": 1999}, "most_slices 1999 are fewer than the 2000 that most_clusters need"),
        ({"least_clusters": 1}, "greater than or equal to 2"),
        ({"clusters": 3}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ClusterConfig(**values)


def test_the_number_of_clusterers_decides_nothing_about_each_of_them():
    assert ClusterConfig(num_clusterers=3).deciding() == ClusterConfig().deciding()
    assert ClusterConfig(max_iter=3).deciding() != ClusterConfig().deciding()
