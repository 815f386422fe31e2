"""Parameters that gradient descent cannot take out of their range."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, GetAttrKey, SequenceKey, keystr
from jaxtyping import Array

from neurojax._check import Converter, brief

__all__ = ["unconstrained"]

Free = dict[str, Array]


def __dir__() -> list[str]:
    return __all__


def unconstrained(model: Any) -> tuple[Free, Callable[[Free], Any]]:
    """How far each parameter has moved, any real number, and the model that has moved so far.

    The first is a dict of arrays, each of its parameter's shape, by names such as "tau_mem" or
    "layers.h.neuron.tau_mem"; all are 0 at the start. The second takes it, or the part of it
    that is to be learned, to a model in whose ranges all parameters lie, whatever an
    optimiser's step: with c the distance of the start x_0 from the end of its range,

        x > low:    x = low + c exp(asinh(s / 2c)), which is about x_0 + s / 2, later low + s
        in between: a logistic function of s
        elsewhere:  x = x_0 + s

    s in units of x, but in the second. v_th stays above v_reset, also where that moves. A
    parameter that lies at the end of its range, as t_ref = 0 does, stays there and is left out.
    Raises `ValueError` for a name that the model does not have.

    >>> free, moved = nj.unconstrained(nj.LIF(tau_mem=20.0))
    >>> float(moved({"tau_mem": jnp.float32(-1000.0)}).tau_mem) > 0
    True
    """
    if not isinstance(model, eqx.Module | dict | tuple | list):
        raise TypeError(f"model must be a model, such as nj.LIF(); got {brief(model)}")
    paths, structure = jax.tree_util.tree_flatten_with_path(model)
    start = {keystr(path, simple=True, separator="."): x for path, x in paths}
    rules = dict(zip(start, (_range(model, path) for path, _ in paths), strict=True))
    names = [n for n, x in start.items() if eqx.is_inexact_array(x)]
    names = [n for n in names if _inside(n, start, rules[n])]

    def moved(free: Free) -> Any:
        if not free.keys() <= set(names):
            raise ValueError(f"{sorted(free.keys() - set(names))} are none of {names}")
        now = dict(start)
        for name in sorted(free, key=lambda n: _above(n, rules[n]) is not None):
            now[name] = _moved(name, free[name], start, now, rules[name])
        return jax.tree.unflatten(structure, now.values())

    return {n: jnp.zeros_like(start[n]) for n in names}, moved


def _range(model: Any, path: tuple) -> Converter:
    """Which values the field at the end of `path` may have: any, where it does not say."""
    for key in path[:-1]:
        model = _at(model, key)
    field = getattr(type(model), "__dataclass_fields__", {}).get(getattr(path[-1], "name", None))
    converter = field.metadata.get("converter") if field is not None else None
    converter = getattr(converter, "of", converter)
    return converter if isinstance(converter, Converter) else Converter("", "")


def _at(model: Any, key: Any) -> Any:
    if isinstance(key, GetAttrKey):
        return getattr(model, key.name)
    if isinstance(key, DictKey):
        return model[key.key]
    return model[key.idx] if isinstance(key, SequenceKey) else None


def _above(name: str, rule: Converter) -> str | None:
    """The name of the parameter that this one must exceed."""
    return (
        None if rule.above is None else name.rpartition(".")[0] + "." * ("." in name) + rule.above
    )


def _ends(name: str, x: Array, values: dict[str, Array], rule: Converter) -> tuple[Array, Array]:
    above = _above(name, rule)
    low = jnp.asarray(rule.low, x.dtype) if above is None else values[above]
    low = low if low.shape in ((), x.shape) else low.max()
    return low, jnp.asarray(rule.high, x.dtype)


def _inside(name: str, start: dict[str, Array], rule: Converter) -> bool:
    low, high = _ends(name, start[name], start, rule)
    return bool(((low < start[name]) & (start[name] < high)).all())


def _moved(name: str, s: Array, start: Free, now: Free, rule: Converter) -> Array:
    x = start[name]
    low, high = _ends(name, x, start, rule)
    if rule.high < float("inf"):
        share = (x - low) / (high - low)
        return low + (high - low) * jax.nn.sigmoid(s + jnp.log(share) - jnp.log1p(-share))
    if rule.low == -float("inf") and rule.above is None:
        return x + s
    c, floor = x - low, _ends(name, x, now, rule)[0]
    kind = jnp.finfo(x.dtype)
    least = jnp.maximum(4 * kind.eps * jnp.abs(floor), kind.tiny)  # or low itself by rounding
    return floor + jnp.maximum(c * jnp.exp(jnp.arcsinh(s / (2 * c))), least)
