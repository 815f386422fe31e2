"""A network that fires together, until its inhibitory synapses have learnt to balance it.

Source: Vogels, Sprekeler, Zenke, Clopath and Gerstner (2011), Inhibitory plasticity balances
excitation and inhibition in sensory pathways and memory networks, Science 334, 1569: fig. 4.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from matplotlib.figure import Figure

import neurojax as nj
from experiments._networks import figures, judged, seen
from experiments._networks.judged import Row
from experiments._networks.runs import Ready, begun, run
from experiments._networks.study import Found, Study

N_EXC, N_INH, P = 8000, 2000, 0.02
DT, DELAY, FIXED = 0.1, 1, 0.5  # ms, steps, seconds before it learns
RHO, W_MAX = 3.0, 0.1  # Hz, uS


def vogels(key: jax.Array, scale: float) -> Ready:
    """Neurons that a current alone makes fire; only inhibition onto those that excite learns."""
    n_exc, n_inh = round(N_EXC * scale), round(N_INH * scale)
    n, p = n_exc + n_inh, min(P / scale, 1.0)
    # 200 pA into 100 MOhm, as a potential at rest
    neuron = nj.LIF(20.0, r_mem=100.0, v_rest=-40.0, v_th=-50.0, v_reset=-60.0, t_ref=5.0)
    ports = {
        "exc": nj.Conductance(nj.Exponential(5.0), e_rev=0.0),
        "inh": nj.Conductance(nj.Exponential(10.0), e_rev=-80.0),
    }
    rule = nj.InhibitorySTDP(eta=1e-3, rho_0=RHO, tau=20.0)
    blocks = {  # from whom, to whom, port, uS
        "exc": ([p, 0.0], [p, 0.0], "exc", 0.0003),
        "inh": ([0.0, 0.0], [0.0, p], "inh", 0.003),
        "learns": ([0.0, p], [0.0, 0.0], "inh", 0.0),
    }
    wires = {}
    for name, (to_exc, to_inh, port, w) in blocks.items():
        sizes, learns = [n_exc, n_inh], name == "learns"
        wiring = nj.blocks(nj.fold(key, name), sizes, sizes, [to_exc, to_inh])
        wires[name] = nj.Projection(
            "cells", "cells", wiring.with_columns() if learns else wiring, port=port, delay=DELAY,
            rule=rule if learns else None, plastic=learns, w=jnp.full(wiring.shape, w),
        )  # fmt: skip
    net = nj.Network({"cells": nj.Layer(n, neuron, ports=ports)}, wires)
    v = jax.random.uniform(nj.fold(key, "v"), (n,), minval=-60.0, maxval=-50.0)
    return Ready(net, begun(net, "cells", v=v))


def _once(seed: int, scale: float, seconds: float, mesh: Mesh | None) -> Found:
    key = jax.random.key(seed)
    made = vogels(nj.fold(key, "made"), scale)
    n_exc = round(N_EXC * scale)
    weights = made.net.init_weights(key, nj.ideal(bounds=(0.0, W_MAX)))
    options: Any = dict(layer="cells", dt=DT, learn=True, mesh=mesh)
    # At first the rule only watches: its traces are there when it begins to learn.
    still = eqx.tree_at(lambda m: m.net.projections["learns"].rule.eta, made, jnp.zeros(()))
    first = run(still, weights, seconds=FIXED, key=nj.fold(key, "first"), **options)
    made = made._replace(state=first.state)
    then = run(made, weights, seconds=seconds, key=nj.fold(key, "then"), **options)
    groups, found = [n_exc, first.spikes.n - n_exc], {}
    for name, spikes in (("before", first.spikes), ("after", then.spikes)):
        late = spikes.after(max(spikes.duration - 2500.0, 0.4 * spikes.duration)).of(slice(n_exc))
        rates = nj.spikes.rates(late)
        found |= {
            f"rate_{name}": float(rates.mean()), f"spread_{name}": float(rates.std()),
            f"cv_{name}": seen.mean(nj.spikes.cv(late)),
            f"synchrony_{name}": nj.spikes.synchrony(late, 5.0),
            f"raster_{name}": seen.raster(spikes, groups, last=300.0),
        }  # fmt: skip
    return found


def _judged(found: list[Found]) -> list[Row]:
    others, source = judged.recorded("vogels")
    ours = lambda k: [x[k] for x in found]  # noqa: E731
    both = lambda k: (ours(k), [x[k] for x in others])  # noqa: E731
    # A spike of inhibition delays those of its receiver: fewer pairs, so a rate above RHO.
    target = judged.near("rate, learnt", "Hz", ours("rate_after"), RHO, 0.25, "target of the rule")
    return [
        target,
        judged.alike("rate, learnt", "Hz", *both("rate_after"), source),
        judged.alike("its spread over neurons", "Hz", *both("spread_after"), source),
        judged.alike("CV of intervals, learnt", "", *both("cv_after"), source),
        judged.alike("synchrony in 5 ms, learnt", "", *both("synchrony_after"), source),
        judged.alike("rate, before", "Hz", *both("rate_before"), source),
        judged.alike("synchrony in 5 ms, before", "", *both("synchrony_before"), source),
    ]


def _drawn(found: list[Found]) -> Figure:
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    for ax, name in zip(figure.subplots(1, 2), ("before", "after"), strict=True):
        rate, chi = found[0][f"rate_{name}"], found[0][f"synchrony_{name}"]
        title = f"{name} learning: {rate:.1f} Hz, synchrony {chi:.2f}"
        figures.raster(ax, found[0][f"raster_{name}"], title)
    return figure


STUDIES = {"vogels": Study(_once, _judged, _drawn, seconds=10.0, scale=0.2)}
