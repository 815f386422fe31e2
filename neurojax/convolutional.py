"""The convolutional network: maps of spiking neurons, pools between them, a leaky readout."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from neurojax._check import brief, count, instance, nonnegative
from neurojax.network import Layer, Network, Projection
from neurojax.neurons.leaky import LeakyIntegrator
from neurojax.plasticity.three_factor import Rule, ThreeFactor, always
from neurojax.structured import READOUT
from neurojax.wiring.convolution import Conv2D

__all__ = ["convolutional"]


def convolutional(
    size: tuple[int, int, int],
    features: Sequence[int],
    n_classes: int,
    *,
    neuron: Any,
    kernel: int = 3,
    pool: int = 2,
    rule: Rule | None = None,
    readout: LeakyIntegrator | None = None,
    gain_in: float | Array = 2.0,
    gain_forward: float | Array = 2.0,
) -> Network:
    """Input "input" -> layers "h1", "h2", ... of maps -> "readout" of leaky integrators.

    `size` is (channels, height, width) of pictures, which come flat, [n_in], nA or spikes. Layer i
    has features[i] maps of `neuron`s, all alike; its windows of `kernel` x `kernel` leave the size
    of what they see: the picture or, from the second layer on, means over pools of `pool` x `pool`
    neurons of the layer before (`Conv2D`). The readout, one neuron a class, sees all pools of the
    last layer; its weights start at 0, those of the others with `gain_in` and `gain_forward`
    (`normal`). `rule` serves the hidden layers (None: `ThreeFactor()`). 32C3-P2-64C3-P2-10 is

    >>> net = nj.convolutional((1, 28, 28), (32, 64), 10, neuron=nj.LIF())
    >>> {name: p.connectivity.shape for name, p in net.projections.items()}
    {'input->h1': (32, 1, 3, 3), 'h1->h2': (64, 32, 3, 3), 'h2->readout': (10, 64, 7, 7)}
    >>> net.layers["h2"].n  # 64 maps of 14 x 14
    12544

    Raises `ValueError` for an even kernel, sizes that do not fit one another, no features, fewer
    than two classes and a gain that is not finite and >= 0; `TypeError` for what is no neuron.
    """
    neuron, n_classes = instance("neuron", neuron, "init", "step"), count("n_classes", 2)(n_classes)
    if not isinstance(features, Sequence) or not features:
        raise ValueError(
            f"features must list one number of maps a layer or more; got {brief(features)}"
        )
    for name, x in (("gain_in", gain_in), ("gain_forward", gain_forward)):
        nonnegative(name, "nA")(x)
    rule = ThreeFactor() if rule is None else rule
    layers, projections, before, pre = {}, {}, tuple(size), "input"
    for i, n in enumerate(features):
        name, pools = f"h{i + 1}", pool if i else 1
        wiring = Conv2D(before, n, kernel, padding="same", pool=pools)
        layers[name] = Layer(wiring.n_post, neuron, rule=rule)
        gain = gain_forward if i else gain_in
        projections[f"{pre}->{name}"] = Projection(pre, name, wiring, gain=gain)
        before, pre = wiring.size_post, name
    whole = tuple(x // pool for x in before[1:])
    if not all(whole):
        raise ValueError(f"pool must fit the maps of the last layer, {before[1:]}; got {pool}")
    wiring = Conv2D(before, n_classes, whole, pool=pool)
    projections[f"{pre}->{READOUT}"] = Projection(pre, READOUT, wiring, gain=0.0)
    neuron = LeakyIntegrator(tau_mem=-1 / jnp.log(0.9)) if readout is None else readout
    delta = ThreeFactor(kappa_e=0.0, window=always, reset_trace=False)
    layers[READOUT] = Layer(n_classes, instance("readout", neuron, "init", "step"), rule=delta)
    return Network(layers, projections)


def __dir__() -> list[str]:
    return __all__
