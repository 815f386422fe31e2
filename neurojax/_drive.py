"""What arrives from outside, multiplied ahead of the steps: currents by layer, and by port.

A product over all steps at once is faster than one in each. What stands in the way of it, such as
a delay, a release or weights that change, is read step by step instead (`Network.step`).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from neurojax._check import real
from neurojax._draw import fold
from neurojax.layers import Projection
from neurojax.weights import Held, Weights
from neurojax.wiring.shards import heard

if TYPE_CHECKING:
    from neurojax.network import Network


def at(name: str, port: str | None) -> str:
    """Where a current for this port of a layer stands in a drive: "layer", or "layer.port"."""
    return name if port is None else f"{name}.{port}"


def target(p: Projection) -> str:
    """The same for what a projection delivers."""
    return at(p.post, p.port)


def currents(
    net: "Network", weights: dict[str, Weights], inputs: dict[str, Array], key: Array | None,
    start: Any = 0, besides: Iterable[str] = (),
) -> dict[str, Array]:  # fmt: skip
    """`Network.drive` of inputs from step `start` on, less the projections `besides`."""
    total: dict[str, Array] = {}
    for name in net.external():
        p = net.projections[name]
        if name not in besides:
            current, to = _read(weights[name], real(inputs[p.pre]), key, name, start), target(p)
            total[to] = _add(total[to], current) if to in total else current
    return total


def held(
    net: "Network", weights: dict[str, Weights], inputs: dict[str, Array], key: Array | None,
    besides: Iterable[str] = (),
) -> dict[str, Held]:  # fmt: skip
    """Inputs that stay and yet read differently in each step, by projection."""
    found = {}
    for name in set(net.external()) - {*besides} if key is not None else ():
        x = inputs[net.projections[name].pre]
        if x.ndim == 1 and hasattr(weights[name], "hold"):
            found[name] = weights[name].hold(real(x))  # pyright: ignore[reportAttributeAccessIssue]
    return {name: x for name, x in found.items() if x is not None}


def read(
    net: "Network", drive: dict[str, Array], held: dict[str, Held], key: Any
) -> dict[str, Array]:
    """`drive` [n] of one step, and with it what is held, as it reads with the step's key."""
    total = dict(drive)
    for name, x in held.items():
        post, current = target(net.projections[name]), x.read(key=fold(key, name))
        total[post] = total[post] + current if post in total else current
    return total


def _read(weights: Weights, x: Array, key: Array | None, name: str, start: Any) -> Array:
    """Current [n] of a held input [n_in], or [T, n] of one that changes, from step `start` on."""
    x = heard(getattr(weights, "connectivity", None), x)
    if x.ndim == 1:
        return weights.apply(x, key=fold(key, name))
    if key is None:
        return jax.vmap(weights.apply)(x)
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(start + jnp.arange(x.shape[0]))
    return jax.vmap(lambda x, key: weights.apply(x, key=fold(key, name)))(x, keys)


def _add(a: Array, b: Array) -> Array:
    if a.ndim != b.ndim:
        a, b = jnp.atleast_2d(a), jnp.atleast_2d(b)
    return a + b
