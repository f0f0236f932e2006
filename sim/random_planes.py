"""Random activation planes, for random networks: bases of any worth, tables that give words twice or never."""

import numpy as np

from .manifest import ActivationPlanes
from .plane_basis import PlaneBasis
from .random_options import ACTIVATION_PLANES, Decisions

__all__ = ["draw_basis"]

MAX_THRESHOLDS = 15


def draw_basis(draw: Decisions, rng: np.random.Generator, span: float) -> PlaneBasis:
    """A basis whose thresholds are spread over -span..span; every other one has words in the order of their values."""
    values = {"0 and 1": "bits", "-1 and +1": "signs"}[draw.option("planes of activations", ("0 and 1", "-1 and +1"))]
    planes = draw.between(*ACTIVATION_PLANES[draw.option("activation planes", tuple(ACTIVATION_PLANES))])
    beta = 2.0 ** np.arange(planes) * rng.uniform(0.5, 1)
    if draw.between(0, 1):
        beta = rng.uniform(0.3, 1, planes) * rng.choice((-1, 1), planes)
    count = draw.between(1, MAX_THRESHOLDS)
    words = rng.integers(0, 1 << planes, count + 1)
    spec = ActivationPlanes(values=values, beta=tuple(beta.tolist()))  # type: ignore[arg-type]
    thresholds = tuple(np.sort(rng.uniform(-span, span, count)).tolist())
    return PlaneBasis(spec, thresholds, tuple(words.tolist()), int(rng.integers(0, 1 << planes)))
