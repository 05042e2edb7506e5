"""Which units matter: each function is a score, and the methods that use it are registered above it."""

# Reading a module registers its methods; the order is that of listings.
from shrinkbench.pruning.scoring import magnitude as _magnitude  # isort: skip
from shrinkbench.pruning.scoring import gradient as _gradient  # isort: skip
from shrinkbench.pruning.scoring import untrained as _untrained  # isort: skip
from shrinkbench.pruning.scoring import curvature as _curvature  # isort: skip
from shrinkbench.pruning.scoring import surgeon as _surgeon  # isort: skip
from shrinkbench.pruning.scoring import activation as _activation  # isort: skip
from shrinkbench.pruning.scoring import reconstruction as _reconstruction  # isort: skip
from shrinkbench.pruning.scoring import filters as _filters  # isort: skip

__all__: list[str] = []

_FAMILIES = (
    _magnitude,
    _gradient,
    _untrained,
    _curvature,
    _surgeon,
    _activation,
    _reconstruction,
    _filters,
)
