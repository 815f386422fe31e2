"""What the visits of a step do to every weight, one side after the other, in NumPy."""

import jax.numpy as jnp
import numpy as np
from oracles import connectivity as wiring


def visit_dense(w, connectivity, visits, bounds=(-np.inf, np.inf)):
    """Weights [as the layout stores them] after the visits of one step: at_pre, then at_post.

    dw_ij = event trace scale(w_ij) at each synapse from j to i, with the event of the side that
    fired and the trace of the other; held by `bounds` (numbers, or one a weight) after each side.
    """
    rows, columns, count = wiring.synapses(connectivity)
    w = np.asarray(w, float)
    for visit, fired, other in zip(visits, (columns, rows), (rows, columns), strict=True):
        if visit is not None:
            event, trace = (np.asarray(x, float) for x in (visit.event, visit.trace))
            scale = 1.0 if visit.scale is None else np.asarray(visit.scale(jnp.asarray(w)), float)
            asked = event[fired] * trace[other] * scale
            w = np.where((count > 0) & (asked != 0), np.clip(w + asked, *bounds), w)
    return w
