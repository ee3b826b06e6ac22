"""How clusterers of slices are fitted."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
AtLeastTwo = Annotated[int, Field(ge=2)]


class ClusterConfig(BaseModel):
    """Clusterers of slices; the defaults are Masked LoGoNet's, with minibatches that hold more slices than clusters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    num_clusterers: PositiveInt = 80
    """Clusterers, each with a seed, a number of clusters and scans of its own (N). More can be added to those that are
    there; the network's labels are one for each of them."""
    least_clusters: AtLeastTwo = 80
    """Of a clusterer, whose number of clusters is drawn evenly between this and `most_clusters` (k)."""
    most_clusters: AtLeastTwo = 500
    """Of a clusterer."""
    scan_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the scans that a clusterer is fitted on, drawn for each; more are read where these give too few slices
    for `slices_per_cluster`."""
    crops_per_scan: PositiveInt | None = None
    """Random crops of each of these scans. None: one, and where all scans give too few slices so, more of each, as many
    as are needed and 20 at most."""
    slices_per_cluster: PositiveInt = 4
    """Different slices that a clusterer needs for each of its clusters."""
    fewer_clusters: bool = False
    """What happens where all scans together have too few different slices: true lowers the number of clusters, even
    below `least_clusters`, false ends with an error."""
    most_slices: PositiveInt = 50_000
    """Slices that a clusterer is fitted on at most, which bounds the memory: 50,000 of 96 x 96 voxels take 1.8 GB."""
    skip_constant: bool = False
    """Leave out slices with a single value in each channel, such as air or what lies outside the scan: from the fits,
    and from loss and scores."""
    least_batch: PositiveInt = 1024
    """Slices of a minibatch, at least. The authors' code has 20, fewer than there are clusters."""
    batch_per_cluster: PositiveInt = 4
    """Slices of a minibatch for each cluster, where that is more than `least_batch`."""
    num_starts: PositiveInt = 3
    """Starts by k-means++, of which the best one is taken (scikit-learn's n_init; 50 in the authors' code)."""
    start_slices_per_cluster: PositiveInt = 3
    """Slices for each cluster among which k-means++ chooses, drawn for each start (scikit-learn's init_size). Their
    distances from one another are kept, so the memory grows with the square."""
    max_iter: PositiveInt = 350
    """Passes over the slices, at most."""
    max_no_improvement: PositiveInt | None = 10
    """Minibatches in a row without improvement after which a fit ends; None: never. 100 in the authors' code."""
    reassignment_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Clusters with fewer slices than this share of the largest one get another centre; 0, as in the authors' code:
    never."""

    @model_validator(mode="after")
    def _possible(self) -> "ClusterConfig":
        if self.most_clusters < self.least_clusters:
            raise ValueError(f"most_clusters {self.most_clusters} is below least_clusters {self.least_clusters}")
        if self.most_slices < (needed := self.slices_per_cluster * self.most_clusters):
            raise ValueError(
                f"most_slices {self.most_slices} are fewer than the {needed} that most_clusters need "
                "(slices_per_cluster for each)"
            )
        return self

    def batch_size(self, num_clusters: int) -> int:
        """Slices of a minibatch."""
        return max(self.least_batch, self.batch_per_cluster * num_clusters)

    def deciding(self) -> dict[str, object]:
        """The values that decide what one clusterer is: how many there are does not."""
        names = set(ClusterConfig.model_fields) - {"num_clusterers"}
        return self.model_dump(mode="json", include=names)
