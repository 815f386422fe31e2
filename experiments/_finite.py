"""A training that is not finite: in which batch it began, and which option is most at fault."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from experiments import _config, _run
from neurojax.learning.fitting import NotFinite
from neurojax.learning.wta_broadcast import TrainState

_FAR = 10.0  # times as large or as small as usual


def lost(state: TrainState) -> list[str]:
    """Names of what is not finite: weights of projections first, then thresholds, then the rest."""
    named = {
        **{f"weights {name}": w for name, w in state.weights.items()},
        **{f"thresholds {name}": tone for name, tone in state.homeostasis.items()},
        "the optimiser": state.opt_state,
        "the average": state.average,
    }
    return [name for name, part in named.items() if not _finite(part)]


def _finite(part: Any) -> bool:
    leaves = [x for x in jax.tree.leaves(part) if eqx.is_inexact_array(x)]
    return all(bool(np.isfinite(np.asarray(x)).all()) for x in leaves)


def refuse(parts: list[str], since: str) -> None:
    """Raise `NotFinite` if anything is lost."""
    if parts:
        raise NotFinite(parts, since)


def first_loss(
    learn: Callable, state: Any, n_batches: int, epoch: int, lost: Callable[[Any], list[str]]
) -> NotFinite:
    """That of the batch in which it began, as an epoch that lost something is run again."""
    for i in range(n_batches):
        state, _ = learn(state, ends=jnp.asarray([i, i + 1]))
        if parts := lost(state):
            return NotFinite(parts, f"in batch {i + 1} of epoch {epoch}")
    raise AssertionError("an epoch must be the same when it is run again")


@contextmanager
def blamed(c: _config.Config) -> Iterator[None]:
    """`NotFinite` in the block names the option most likely at fault.

    That is the one furthest from what is usual for these data; where none is ten times as large
    or as small, the learning rate of what was lost first.
    """
    try:
        yield
    except NotFinite as found:
        raise NotFinite(found.parts, found.since, _cure(c, found.parts)) from None


def _cure(c: _config.Config, parts: list[str]) -> str:
    name, factor = max(_factors(c).items(), key=lambda found: abs(math.log(found[1])))
    if abs(math.log(factor)) < math.log(_FAR):
        name, factor = _rate_of(parts), _FAR
    size = "smaller" if factor > 1 else "larger"
    return f"; pass a {size} --{_run.dashed(name)} than {getattr(c, name):g}"


def _factors(c: _config.Config) -> dict[str, float]:
    """Each number of the configuration, as a multiple of what it would be by default."""
    default = {f.name: f.default for f in fields(c) if isinstance(getattr(c, f.name), float)}
    usual = _config.resolved(replace(c, **default))
    return {name: _factor(getattr(c, name), getattr(usual, name)) for name in default}


def _factor(now: float, usual: float | None) -> float:
    """Nothing is too large that is 0, or that is below 1 and usually not there."""
    return now / usual if now and usual else max(now, 1.0)


def _rate_of(parts: list[str]) -> str:
    if all(part.startswith("thresholds") for part in parts):
        return "homeostasis"
    readout = [part for part in parts if part.endswith("->readout")]
    return "lr_readout" if parts[: len(readout)] == readout and readout else "lr"


def or_nan(x: jax.Array, part: Any) -> jax.Array:
    """`x`, NaN where a number of `part` is not finite; traced as well."""
    leaves = [x for x in jax.tree.leaves(part) if eqx.is_inexact_array(x)]
    return jnp.where(jnp.stack([jnp.isfinite(x).all() for x in leaves]).all(), x, jnp.nan)
