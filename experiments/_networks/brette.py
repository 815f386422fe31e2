"""The benchmarks of Brette et al. (2007): 4,000 neurons that excite and inhibit one another.

Source: Brette et al. (2007), Simulation of networks of spiking neurons: a review of tools and
strategies, Journal of Computational Neuroscience 23, 349.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

import neurojax as nj
from experiments._networks import figures, judged, seen
from experiments._networks.judged import Row
from experiments._networks.runs import Ready, begun, watched
from experiments._networks.study import Found, Study

N, P = 4000, 0.02
DT = {"cuba": 0.1, "coba": 0.1, "cobahh": 0.05}  # ms
DELAY, SKIP = 0.1, 200.0  # ms


def cuba(key: jax.Array, scale: float) -> Ready:
    """Synapses as currents, by their effect on the potential, mV."""
    n_exc, n_inh = _sizes(scale)
    ports = {"exc": nj.Exponential(5.0), "inh": nj.Exponential(10.0)}
    neuron = nj.LIF(tau_mem=20.0, v_rest=-49.0, v_th=-50.0, v_reset=-60.0, t_ref=5.0)
    net = _balanced(key, neuron, ports, {"exc": 1.62, "inh": -9.0}, scale, DT["cuba"])
    v = jax.random.uniform(nj.fold(key, "v"), (n_exc + n_inh,), minval=-60.0, maxval=-50.0)
    return Ready(net, begun(net, "cells", v=v))


def coba(key: jax.Array, scale: float) -> Ready:
    """Synapses as conductances, uS: activity that sustains itself, once it is begun."""
    neuron = nj.LIF(20.0, r_mem=100.0, v_rest=-60.0, v_th=-50.0, v_reset=-60.0, t_ref=5.0)
    return _conductances(key, neuron, scale, DT["coba"])


def cobahh(key: jax.Array, scale: float) -> Ready:
    """The same synapses on neurons with channels of sodium and potassium."""
    return _conductances(key, nj.TraubMiles(), scale, DT["cobahh"])


def _conductances(key: jax.Array, neuron, scale: float, dt: float) -> Ready:
    ports = {
        "exc": nj.Conductance(nj.Exponential(5.0), e_rev=0.0),
        "inh": nj.Conductance(nj.Exponential(10.0), e_rev=-80.0),
    }
    net = _balanced(key, neuron, ports, {"exc": 0.006, "inh": 0.067}, scale, dt)
    # Spread widely: from narrower starts inhibition quenches one run in ten within 100 ms.
    v, exc, inh = jax.random.normal(nj.fold(key, "start"), (3, sum(_sizes(scale))))
    start = {
        "exc": jnp.maximum(0.03 + 0.02 * exc, 0),
        "inh": jnp.maximum(0.25 + 0.25 * inh, 0),
    }
    return Ready(net, begun(net, "cells", v=-65.0 + 5.0 * v, **start))


def _balanced(key: jax.Array, neuron, ports, weight, scale: float, dt: float) -> nj.Network:
    """Each pair is connected with the same probability, however large the network."""
    n_exc, n_inh = sizes = _sizes(scale)
    p, n = min(P / scale, 1.0), n_exc + n_inh
    chance, delay = {"exc": [[p, 0.0]], "inh": [[0.0, p]]}, int(nj.steps(DELAY, dt=dt))
    wires = {}
    for port, w in weight.items():
        wiring = nj.blocks(nj.fold(key, port), sizes, [n], chance[port])
        wires[port] = nj.Projection(
            "cells", "cells", wiring, port=port, delay=delay, w=jnp.full(wiring.shape, w)
        )
    return nj.Network({"cells": nj.Layer(n, neuron, ports=ports)}, wires)


def _sizes(scale: float) -> tuple[int, int]:
    return round(0.8 * N * scale), round(0.2 * N * scale)


# --- what is held against what ---


def _once(
    make: Callable, dt: float, seed: int, scale: float, seconds: float, mesh: Mesh | None
) -> Found:
    key = jax.random.key(seed)
    made = make(nj.fold(key, "made"), scale)
    spikes = watched(made, "cells", seconds=seconds, dt=dt, key=key, mesh=mesh)
    shown = seen.raster(spikes, list(_sizes(scale)), last=300.0)
    return seen.population(spikes, skip=SKIP) | {"raster": shown}


def _judged(name: str, found: list[Found]) -> list[Row]:
    others, source = judged.recorded(name)
    both = lambda k: ([x[k] for x in found], [x[k] for x in others])  # noqa: E731
    return [
        judged.alike("rate", "Hz", *both("rate"), source),
        judged.alike("CV of intervals", "", *both("cv"), source),
        judged.alike("correlation in 5 ms", "", *both("correlation"), source),
        judged.distance("KS distance of rates", *both("rates"), source),
        judged.distance("KS distance of CVs", *both("cvs"), source),
    ]


def _study(name: str, make: Callable, seconds: float) -> Study:
    draw = lambda found: figures.population(found, judged.recorded(name)[0], name.upper())  # noqa: E731
    return Study(partial(_once, make, DT[name]), partial(_judged, name), draw, seconds)


STUDIES = {
    "cuba": _study("cuba", cuba, 2.2),
    "coba": _study("coba", coba, 2.2),
    "cobahh": _study("cobahh", cobahh, 1.2),
}
