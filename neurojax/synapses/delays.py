"""Delays: spikes under way, in whole steps.

Times that a user writes in ms become whole steps by `steps`, or are refused.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from neurojax._check import MOST, brief, count, flag, one_each, step_size
from neurojax._memory import affordable
from neurojax._repr import described

__all__ = ["Delay", "DelayState", "Delays", "steps"]


def __dir__() -> list[str]:
    return __all__


class DelayState(NamedTuple):
    """The last spikes of one population, in a ring.

    Fields:
        ring: float [steps, n]; spikes under way
        head: int []; the oldest row, next to be overwritten
        due: float [n]; that row: XLA copies a ring that is read before it is written
    """

    ring: Float[Array, "steps *n"]
    head: Int[Array, ""]
    due: Float[Array, "*n"]


@described
class Delay(eqx.Module):
    """Spikes come out whole `steps` after they went in, and zeros before.

    Within a step first `read`, then `write`: what is written at step t is read at
    t + steps. A step touches one row of the ring, however long it is. The head is one
    number: under `vmap` keep its axis out (`in_axes`), or each row becomes a gather.
    Raises `ValueError` for `steps` that are not a whole number >= 1.

    >>> line = nj.Delay(2)  # in steps
    >>> state = line.write(line.init((1,)), jnp.ones(1))  # step 0: a spike goes in
    >>> state = line.write(state, jnp.zeros(1))  # step 1
    >>> line.read(state)  # step 2: it comes out
    Array([1.], dtype=float32)
    """

    steps: int = eqx.field(static=True, converter=count("steps"))

    def init(self, shape: tuple[int, ...], dtype: DTypeLike = float) -> DelayState:
        """No spike under way."""
        n_bytes = 8 * self.steps * math.prod(shape)
        affordable(f"a delay of {self.steps} steps of shape {tuple(shape)}", n_bytes)
        ring = jnp.zeros((self.steps, *shape), dtype)
        return DelayState(ring, jnp.zeros((), jnp.int32), ring[0])

    def read(self, state: DelayState) -> Float[Array, "*n"]:
        """The spikes of `steps` steps ago."""
        return state.due

    def write(self, state: DelayState, z: Shaped[Array, "*n"]) -> DelayState:
        """The state of the next step, with this step's spikes in place of those just read."""
        z = one_each("z", z, state.due.shape).astype(state.ring.dtype)
        ring = jax.lax.dynamic_update_index_in_dim(state.ring, z, state.head, axis=0)
        head = (state.head + 1) % self.steps
        due = jax.lax.dynamic_index_in_dim(ring, head, keepdims=False)
        return DelayState(ring, head, due)


class Late(NamedTuple):
    """What was sent in the last `longest` steps, or arrives in the next ones.

    Fields:
        ring: float [longest, n]; a row a step
        head: int []; the row of the coming step
    """

    ring: Float[Array, "longest n"]
    head: Int[Array, ""]


class Delays(eqx.Module):
    """Delays that are data: `steps`, whole steps from 1 to `longest`, which alone is structure.

    One number, or one a synapse, shaped as the weights. A sweep over them is a `vmap` and
    compiles once. What is sent is held in a ring of [longest, n_pre]; with one a synapse on an
    event list what arrives is, [longest, n_post], and a spike costs what it reaches.
    Raises `ValueError` for steps that are not whole, below 1 or above `longest`.

    >>> nj.Delays(nj.steps([1.5, 0.3], dt=0.1))
    Delays(2 delays, 3 to 15 of at most 15 steps)
    """

    steps: Int[Array, "*w"]
    longest: int = eqx.field(static=True)

    def __init__(self, steps: Any, longest: Any = None):
        self.steps = _whole(steps)
        known = not isinstance(self.steps, Tracer)
        if longest is None and not known:
            raise ValueError("longest must be given where steps are traced: pass longest=50")
        found = np.asarray(self.steps) if known else np.ones(1, int)
        if found.size == 0 or found.min() < 1:
            least = f"{found.min()}" if found.size else "none"
            raise ValueError(f"delays must be >= 1 step; got {least}")
        self.longest = int(found.max()) if longest is None else count("longest")(longest)
        if found.max() > self.longest:
            raise ValueError(
                f"delays must be <= longest, {self.longest} steps; got {found.max()}:"
                f" pass longest={found.max()}"
            )

    def __repr__(self) -> str:
        if isinstance(self.steps, Tracer):
            return f"Delays({self.steps.shape}, at most {self.longest} steps)"
        steps = np.asarray(self.steps)
        n, low, high = steps.size, int(steps.min()), int(steps.max())
        span = f"{low}" if low == high else f"{low} to {high}"
        some = "1 delay" if n == 1 else f"{n:,} delays"
        return f"Delays({some}, {span} of at most {self.longest} steps)"

    def init(self, n: int, dtype: DTypeLike = float) -> Late:
        """Nothing under way, of `n` neurons."""
        return Late(jnp.zeros((self.longest, n), dtype), jnp.zeros((), jnp.int32))

    def pushed(self, state: Late, sent: Shaped[Array, " n"]) -> Late:
        """With what was sent in the last step, in place of the oldest."""
        ring = jax.lax.dynamic_update_index_in_dim(
            state.ring, sent.astype(state.ring.dtype), state.head, 0
        )
        return Late(ring, (state.head + 1) % self.longest)

    def read(self, state: Late) -> Float[Array, " n"]:
        """What was sent `steps` steps ago, once it is `pushed`; one delay for all."""
        row = (state.head - self.steps) % self.longest
        return jax.lax.dynamic_index_in_dim(state.ring, row, keepdims=False)

    def read_each(self, state: Late, pre: Int[Array, "*w"]) -> Float[Array, "*w"]:
        """The same at each synapse, of its own delay and of its sender `pre`."""
        return state.ring[(state.head - self.steps) % self.longest, pre]


def steps(ms: Any, *, dt: Any, nearest: bool = False) -> Int[np.ndarray, "..."]:
    """Times in ms as whole steps of `dt` ms.

    A time that is not whole, to a part in a million, is refused; with `nearest` it is rounded.

    >>> nj.steps([1.5, 0.3], dt=0.1).tolist()
    [15, 3]

    Raises `ValueError` for times that are not finite, not whole steps, or negative.
    """
    dt = float(step_size(dt))
    try:
        given = np.asarray(ms)
        given = given.astype(np.float64, casting="unsafe" if given.dtype == object else "same_kind")
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"ms must be numbers; got {brief(ms)}") from None
    if not np.isfinite(given).all() or (given < 0).any():
        raise ValueError(f"ms must be finite and >= 0; got {brief(ms)}")
    with np.errstate(over="ignore"):
        exact = given / dt
    whole = np.rint(exact)
    if whole.max(initial=0) > MOST:
        raise ValueError(f"ms must be at most {MOST} steps; got {given.max():g} ms of {dt:g} ms")
    off = np.abs(exact - whole) > 1e-6 * np.maximum(whole, 1)
    if not flag("nearest")(nearest) and off.any():
        worst = given[off].flat[0] if given.ndim else float(given)
        raise ValueError(
            f"ms must be whole steps of {dt:g} ms; got {worst:g}: pass nearest=True to round"
        )
    return np.asarray(whole, np.int32)


def _whole(x: Any) -> Array:
    """Steps as whole numbers, refused in the user's own words."""
    if isinstance(x, Tracer):
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"delays must be whole steps; got {x.dtype}")
        return x
    try:
        found = np.asarray(x)
        kind = found.dtype.kind
    except (TypeError, ValueError):
        kind, found = "O", np.zeros(1)
    if kind not in "iu" and not (kind == "f" and (found == np.rint(found)).all()):
        raise ValueError(
            f"delays must be whole numbers of steps; got {brief(x)}: pass nj.steps(ms, dt=dt)"
        )
    if np.abs(found).max(initial=0) > MOST:
        raise ValueError(f"delays must be at most {MOST} steps; got {brief(x)}")
    return jnp.asarray(found, jnp.int32)
