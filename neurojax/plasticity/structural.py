"""Structural plasticity: synapses of little use are given up for new partners, at fixed fan-in.

Who hears whom is learned too, as slowly as one likes: between batches, `rewired` moves a few
synapses of each neuron. As many come as go, so that what a core of the hardware holds stays.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from neurojax._check import brief, count, flag, instance, prng_key, real
from neurojax.weights import Weights
from neurojax.wiring import generators
from neurojax.wiring.convolution import Local1D, Local2D
from neurojax.wiring.generators import Profile
from neurojax.wiring.layouts import Band, FanIn

__all__ = ["Rewired", "rewire", "rewired"]

_Beside = FanIn | Band | Local1D | Local2D


class Rewired(NamedTuple):
    """Wiring after some synapses have moved, each in its own place of the list.

    Fields:
        wiring: FanIn [n_post, k]
        new: bool [n_post, k]; which synapses have moved
    """

    wiring: FanIn
    new: Bool[Array, "post k"]


def rewire(
    key: Key[Array, ""],
    fan: FanIn,
    use: Float[Array, "post k"],
    n: int,
    *,
    autapses: bool = True,
    beside: _Beside | Sequence[_Beside] = (),
    profile: Profile | None = None,
    shape: tuple[int, ...] | None = None,
) -> Rewired:
    """Each neuron gives up its `n` synapses of smallest `use` and draws as many new partners.

    `use` [n_post, k], in any unit, is what a synapse is worth: |w|, or eligibility added up; where
    it is inf, a synapse stays. Equal ones are picked by chance. New partners are those that the
    neuron had not, neither in `fan` nor in the wirings `beside` it from the same senders (windows,
    a band, lists of other delays), and not itself unless there may be `autapses`. They are drawn
    uniformly, or on the ring or torus of that `shape` in proportion to `profile` of their
    distance, as `distance_dependent` draws them. So fan-in stays k and no pair is connected twice.
    The same key gives the same partners; under `jit` and `vmap` too.

    >>> fan = nj.fan_in(jax.random.key(0), 90, 90, density=0.1)
    >>> moved = nj.rewire(jax.random.key(1), fan, jnp.ones(fan.shape), 2, autapses=False)
    >>> moved.wiring, moved.new.sum(1).tolist() == 90 * [2]
    (FanIn(90 -> 90, fan-in 9), True)

    Source: Bellec, Kappel, Maass and Legenstein (2018), Deep rewiring, ICLR, algorithm 1, for a
    new synapse for each that is lost, though we lose the least used, not those that change sign;
    Butz and van Ooyen (2013), PLoS Comput Biol 9, e1003259, for partners by distance.
    Raises `ValueError` for an n outside [1, k] or of more partners than are left, a `use` of
    another shape, NaN, or inf for too many (at run time where traced), a profile or a shape
    without the other, a shape of other neurons, and for two populations without `autapses`;
    `TypeError` for what is no key, `FanIn` or wiring.
    """
    key, n = prng_key(key), count("n")(n)
    if not isinstance(fan, FanIn):
        raise TypeError(f"fan must be a FanIn; got {brief(fan)}")
    if n > fan.shape[1]:
        raise ValueError(f"n must be in [1, {fan.shape[1]}], the fan-in; got {n}")
    use = _used(use, fan.shape, n)
    if not flag("autapses")(autapses) and fan.n_pre != fan.n_post:
        got = f"{fan.n_pre} and {fan.n_post} neurons"
        raise ValueError(f"autapses=False is for one population; got {got}")
    rows, widths = _others(fan, beside)
    if not autapses:
        rows, widths = [*rows, np.arange(fan.n_post)[:, None]], [*widths, 1]
    torus, ends = _law(fan, profile, shape)
    whole = fan.n_pre if ends is None else int(np.count_nonzero(np.diff(ends, prepend=0)))
    spare = whole - fan.shape[1] - sum(widths)
    if n > spare:
        raise ValueError(
            f"n must be at most {max(spare, 0)}, of {whole} partners those that a neuron lacks for"
            f" certain; got {n}"
        )
    held = jnp.concatenate([fan.index, *(jnp.asarray(r, jnp.int32) for r in rows)], axis=1)
    return Rewired(*_moved(key, fan, use, held, ends, n, torus))


def _used(use: Any, shape: tuple[int, int], n: int) -> Array:
    use = real(use, "use")
    if use.shape != shape:
        raise ValueError(f"use must have shape {shape}, one a synapse; got {use.shape}")
    wrong = jnp.isnan(use).any() | ((use < jnp.inf).sum(1) < n).any()
    told = f"use must be no NaN, and below inf for n = {n} synapses of each neuron at the least"
    if isinstance(wrong, Tracer):
        return eqx.error_if(use, wrong, told)
    if wrong:
        raise ValueError(told)
    return use


def _others(fan: FanIn, beside: Any) -> tuple[list[Any], list[int]]:
    """Senders of each neuron in the wirings beside, and how many these are at most."""
    given = beside if isinstance(beside, list | tuple) else [beside]
    rows, widths = [], []
    for wiring in given:
        if not isinstance(wiring, FanIn | Band | Local1D | Local2D):
            allowed = "FanIn, Band, Local1D or Local2D"
            raise TypeError(f"beside must be wirings, {allowed}; got {brief(wiring)}")
        ends, own = (wiring.n_pre, wiring.n_post), (fan.n_pre, fan.n_post)
        if ends != own:
            raise ValueError(f"beside must connect the same {own[0]} and {own[1]}; got {ends}")
        rows.append(_senders(wiring))
        widths.append(_widest(wiring))
    return rows, widths


def _senders(wiring: _Beside) -> Any:
    """Of each neuron, [n_post, width]; n_pre stands for none."""
    if isinstance(wiring, FanIn):
        return wiring.index
    if isinstance(wiring, Band):
        pre = wiring.edges().pre.reshape(wiring.shape)
        return jnp.where(wiring.mask, pre, wiring.n_pre)
    rows = wiring.features // wiring.groups
    return wiring.seen()[:, None].repeat(rows, 1).reshape(wiring.n_post, -1)


def _widest(wiring: _Beside) -> int:
    """The most senders that a neuron may have, known without its numbers."""
    if isinstance(wiring, Local1D | Local2D):
        return int((wiring.seen() < wiring.n_pre).sum(-1).max())
    return wiring.shape[1] - isinstance(wiring, Band)


def _law(
    fan: FanIn, profile: Profile | None, shape: tuple[int, ...] | None
) -> tuple[tuple[int, int] | None, Any]:
    """The torus on which partners are drawn, and their cumulated weights by offset."""
    if (profile is None) != (shape is None):
        raise ValueError("profile and shape must be given together, or neither")
    if profile is None or shape is None:
        return None, None
    torus = generators._torus(shape, 1, 2)
    if not math.prod(torus) == fan.n_pre == fan.n_post:
        raise ValueError(
            f"shape must hold the {fan.n_post} neurons that hear {fan.n_pre}; got {brief(shape)}"
        )
    distance = np.sqrt(generators._squared_distances(torus))
    return torus, generators._cumulated(np.asarray(profile(distance), float), distance.shape)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _moved(key, fan: FanIn, use, held, ends, n: int, torus) -> tuple[FanIn, Bool[Array, "post k"]]:
    """The wiring, and which synapses have moved."""
    tie, draw = jax.random.split(key)
    order = jnp.lexsort((jax.random.uniform(tie, use.shape), use), axis=1)[:, :n]
    if torus is not None:
        held = jnp.where(held < fan.n_pre, _offsets(held, torus), fan.n_pre)
    partners = generators._beside(draw, _each_once(held, fan.n_pre), n, fan.n_pre, ends)
    if torus is not None:
        partners = generators._seen_from_each(partners, torus)
    rows = jnp.arange(fan.n_post)[:, None]
    index = fan.index.at[rows, order].set(partners.astype(fan.index.dtype))
    wiring = eqx.tree_at(lambda f: f.index, fan, index)  # right as made: nothing to check
    return wiring, jnp.zeros(use.shape, bool).at[rows, order].set(True)


def _each_once(held: Int[Array, "post m"], n: int) -> Int[Array, "post m"]:
    """Rows in order, in which what stood twice stands once, and for none."""
    held = jnp.sort(held, axis=1)
    twice = jnp.pad(held[:, 1:] == held[:, :-1], ((0, 0), (1, 0)))
    slot = jnp.arange(held.shape[1], dtype=held.dtype)
    return jnp.sort(jnp.where(twice | (held >= n), n + slot, held), axis=1)


def _offsets(held: Int[Array, "n m"], shape: tuple[int, int]) -> Int[Array, "n m"]:
    """Flat offsets on the torus of whom each neuron hears."""
    (ny, nx), here = shape, jnp.arange(held.shape[0], dtype=held.dtype)[:, None]
    return (held // nx - here // nx) % ny * nx + (held - here) % nx


def rewired(
    key: Key[Array, ""], weights: Weights, n: int, *, use: Float[Array, "post k"] | None = None,
    **law: Any,
) -> tuple[Weights, Bool[Array, "post k"]]:  # fmt: skip
    """Weights of which `n` synapses a neuron have moved (`rewire`), and which, [n_post, k].

    A synapse that moves starts anew: a number at 0 (or at the bound next to it); on a crossbar its
    devices are reset by a pulse each, which is counted and paid for, and what a policy remembers of
    it is gone. Without `use` that is |w|; `law` is `autapses`, `beside`, `profile` and `shape` of
    `rewire`. A network that goes on learning by rules of its own in `simulate` needs the new
    wiring too: `dataclasses.replace(projection, connectivity=weights.connectivity)`.

    >>> fan = nj.FanIn([[0, 1], [1, 2], [2, 3]], n_pre=4)
    >>> weights = nj.Ideal(jnp.array([[0.1, 2.0], [-3.0, 0.2], [1.0, -0.3]]), fan)
    >>> moved, new = nj.rewired(jax.random.key(0), weights, 1)
    >>> moved.w.tolist()
    [[0.0, 2.0], [-3.0, 0.0], [1.0, 0.0]]

    Raises as `rewire` does, and `TypeError` for weights that cannot be `renewed`.
    """
    held: Any = instance("weights", weights, "apply", "renewed")
    use = jnp.abs(held.w) if use is None else use
    wiring, new = rewire(key, held.connectivity, use, n, **law)
    return held.renewed(wiring, new), new


def __dir__() -> list[str]:
    return __all__
