"""Who connects to whom: generators that draw wiring from a key, as one of the `layouts`."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from neurojax._check import between
from neurojax.layouts import Band, Dense, FanIn, check_radius


def fan_in(key: Key[Array, ""], n_pre: int, n_post: int, density: float) -> FanIn:
    """Fixed fan-in: each neuron draws round(density n_pre) different partners, at least one.

    Raises `ValueError` for a density outside (0, 1].
    """
    k = max(1, round(_density(density) * n_pre))
    draws = jax.vmap(lambda row: jax.random.choice(row, n_pre, (k,), replace=False))
    return FanIn(draws(jax.random.split(key, n_post)).astype(jnp.int32), n_pre)


def watts_strogatz(
    key: Key[Array, ""], n_pre: int, n_post: int, k: int, p_rewire: float | Float[Array, ""]
) -> FanIn:
    """Small-world fan-in: the k nearest of a ring, each rewired at random with `p_rewire`.

    Receivers sit evenly on the senders' ring. Rewired synapses go to partners drawn from all
    that the neuron does not have, near or far, so fan-in is k exactly and no pair is
    connected twice. `p_rewire` 0 is a local patch, 1 a random graph. With n_pre = n_post the
    nearest neuron is oneself, and is left out.
    Source: Watts and Strogatz (1998), Nature 393, p. 440.
    Raises `ValueError` for k outside [1, n_pre] or `p_rewire` outside [0, 1].
    """
    p = between("p_rewire", 0.0, 1.0)(p_rewire)
    recurrent = n_pre == n_post
    if not 1 <= k <= n_pre - recurrent:
        raise ValueError(f"k must be in [1, {n_pre - recurrent}]; got {k}")
    centre = np.arange(n_post) * n_pre / n_post
    offset = (np.arange(n_pre)[None] - centre[:, None] + n_pre / 2) % n_pre - n_pre / 2
    distance = np.abs(offset) + np.where(offset > 0, 0.0, 1e-6)  # ties go to the right
    if recurrent:
        distance[np.arange(n_post), np.arange(n_post)] = np.inf
    rank = jnp.asarray(distance.argsort(1).argsort(1))
    return FanIn(_rewired(key, rank, k, p, recurrent), n_pre)


def _rewired(key, rank, k: int, p, recurrent: bool) -> Int[Array, "post k"]:
    """Keep each of the k nearest with 1 - p; fill up with any others.

    Sorting by one score does both: kept neighbours score below 0, then come all others in
    random order, oneself last.
    """
    coin, order = jax.random.split(key)
    kept = (rank < k) & (jax.random.uniform(coin, rank.shape, p.dtype) >= p)
    score = jnp.where(kept, -1.0, jax.random.uniform(order, rank.shape))
    if recurrent:
        score = jnp.where(rank == rank.shape[1] - 1, jnp.inf, score)
    return jnp.argsort(score, axis=1)[:, :k].astype(jnp.int32)


def locally_dense(
    key: Key[Array, ""], n: int, radius: int, p_rewire: float
) -> tuple[Band, FanIn | None]:
    """A ring in which all neurons within `radius` are connected, partly rewired.

    Of each neuron's 2 radius synapses, m = round(2 radius p_rewire), drawn at random, leave
    the band for a partner outside it: (band, long-range), the second None where m = 0. In-
    degree and the number of long-range slots are exact, as on hardware, where Watts and
    Strogatz (1998) draw each edge's fate alone; no self-loops, no pair twice.
    Raises `ValueError` for a radius outside [1, (n - 1) / 2] or `p_rewire` outside [0, 1].
    """
    check_radius(radius, n)
    between("p_rewire", 0.0, 1.0)(p_rewire)
    lost, spare = round(2 * radius * float(p_rewire)), n - 1 - 2 * radius
    if lost > spare:
        raise ValueError(
            f"p_rewire must be at most {spare / (2 * radius):.3g}, as {n} neurons of radius"
            f" {radius} have {spare} others outside the band; got {p_rewire}"
        )
    which, where = jax.random.split(key)
    order = jax.random.uniform(which, (n, 2 * radius)).argsort(1).argsort(1)
    mask = jnp.insert(order >= lost, radius, False, axis=1)
    if lost == 0:
        return Band(mask, radius), None
    far = jax.vmap(lambda k: jax.random.choice(k, spare, (lost,), replace=False))
    index = far(jax.random.split(where, n)) + radius + 1 + jnp.arange(n)[:, None]
    return Band(mask, radius), FanIn((index % n).astype(jnp.int32), n)


def merged(fan: FanIn, population: int) -> Dense:
    """Collapse each run of `population` receivers that are copies of one another into one.

    Exact where they start equal and see the same error, as leaky-integrator readouts do.
    """
    if population < 1 or fan.n_post % population:
        raise ValueError(f"population must divide {fan.n_post} receivers; got {population}")
    count = fan.matrix(jnp.ones(fan.shape)).reshape(-1, population, fan.n_pre).sum(1)
    return Dense(fan.n_pre, fan.n_post // population, count.astype(jnp.int32))


def _density(density: float) -> float:
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1]; got {density}")
    return float(density)
