"""One k-means clusterer: scikit-learn's MiniBatchKMeans, started by k-means++.

scikit-learn chooses starts from float32 values in float64, and reads all of them again for each cluster; here the
distances of all pairs come from one float32 product, and the greedy choice among them is the same.
"""

from math import log

import numpy as np
import numpy.typing as npt

from voxelseg.pretrain.clusters.settings import ClusterConfig

Rows = npt.NDArray[np.float32]


def fit_kmeans(
    rows: Rows, num_clusters: int, settings: ClusterConfig, *, seed: int
) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Centres (k, T) of the clusters of `rows` (n, T), and the cluster (n,) of each row.

    Runs on one thread, so that the result does not depend on how many there are.
    """
    from sklearn.cluster import MiniBatchKMeans  # takes a second to import, and only this needs it
    from threadpoolctl import threadpool_limits

    model = MiniBatchKMeans(
        num_clusters,
        init=spread_centres,
        n_init=settings.num_starts,
        init_size=min(settings.start_slices_per_cluster * num_clusters, len(rows)),
        batch_size=settings.batch_size(num_clusters),
        max_iter=settings.max_iter,
        max_no_improvement=settings.max_no_improvement,
        reassignment_ratio=settings.reassignment_ratio,
        random_state=seed,
    )
    with threadpool_limits(1):
        model.fit(rows)
    return model.cluster_centers_, model.labels_.astype(np.int64)


def spread_centres(rows: Rows, num_clusters: int, random_state: np.random.RandomState) -> Rows:
    """Rows (k, T) that lie far apart: greedy k-means++ (Arthur & Vassilvitskii, SODA 2007).

    Each next centre is drawn with a probability proportional to the squared distance from the nearest one so far; of
    2 + ln k draws the one is taken that leaves the smallest sum of these distances, as in scikit-learn.
    """
    squares = np.einsum("ij,ij->i", rows, rows)
    distances = np.maximum(squares[:, None] + squares - 2 * (rows @ rows.T), 0)
    np.fill_diagonal(distances, 0)
    num_draws = 2 + int(log(num_clusters))
    chosen = [int(random_state.randint(len(rows)))]
    nearest = distances[chosen[0]]
    for _ in range(1, num_clusters):
        reach = np.cumsum(nearest, dtype=np.float64)
        drawn = np.searchsorted(reach, random_state.uniform(size=num_draws) * reach[-1])
        drawn = np.minimum(drawn, len(rows) - 1)
        left = np.minimum(nearest, distances[drawn])
        best = int(left.sum(axis=1, dtype=np.float64).argmin())
        chosen.append(int(drawn[best]))
        nearest = left[best]
    return rows[chosen]
