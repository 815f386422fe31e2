"""A neuron whose thousand synapses compete by STDP, until each is strong or nothing.

Source: Song, Miller and Abbott (2000), Competitive Hebbian learning through spike-timing-dependent
synaptic plasticity, Nature Neuroscience 3, 919: fig. 2.
"""

import jax
import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

import neurojax as nj
from experiments._networks import figures, judged, seen
from experiments._networks.judged import Row
from experiments._networks.runs import Ready, run
from experiments._networks.study import Found, Study

N, RATE, G_MAX, DT = 1000, 15.0, 0.01, 0.5  # inputs, Hz, of the leak, ms


def song(key: jax.Array) -> Ready:
    """Inputs that fire at random and one neuron; conductances in units of its leak."""
    neuron = nj.LIF(tau_mem=10.0, v_rest=-74.0, v_th=-54.0, v_reset=-60.0)
    opened = nj.Conductance(nj.Exponential(5.0), e_rev=0.0)
    rule = nj.STDP(a_plus=0.01 * G_MAX, a_minus=0.0105 * G_MAX, tau_plus=20.0, tau_minus=20.0)
    layers = {
        "inputs": nj.Layer(N, nj.Poisson(RATE)),
        "cell": nj.Layer(1, neuron, ports={"exc": opened}),
    }
    w = jax.random.uniform(nj.fold(key, "w"), (1, N), maxval=G_MAX)
    wire = nj.Projection("inputs", "cell", nj.Dense(N, 1), port="exc", rule=rule, w=w)
    net = nj.Network(layers, {"learns": wire})
    return Ready(net, net.init())


def _once(seed: int, scale: float, seconds: float, mesh: Mesh | None) -> Found:
    key = jax.random.key(seed)
    made = song(key)
    weights = made.net.init_weights(key, nj.ideal(bounds=(0.0, G_MAX)))
    went = run(made, weights, "cell", seconds=seconds, dt=DT, key=key, learn=True, mesh=mesh)
    w = np.asarray(went.weights["learns"].w).ravel() / G_MAX
    fired = went.spikes.times
    late = fired > 0.8 * went.spikes.duration
    begun = fired < 0.01 * went.spikes.duration
    return {
        "mean": float(w.mean()), "weak": float((w < 0.1).mean()),
        "strong": float((w > 0.9).mean()), "rate": float(late.sum() / (0.2 * seconds)),
        "rate_at_first": float(begun.sum() / (0.01 * seconds)), "weights": seen.quantiles(w),
        "all": w.round(4).tolist(),
    }  # fmt: skip


def _judged(found: list[Found]) -> list[Row]:
    others, source = judged.recorded("song")
    both = lambda k: ([x[k] for x in found], [x[k] for x in others])  # noqa: E731
    return [
        judged.alike("mean weight", "g_max", *both("mean"), source),
        judged.alike("weights below g_max / 10", "", *both("weak"), source),
        judged.alike("weights above 9 g_max / 10", "", *both("strong"), source),
        judged.alike("rate of the neuron, at last", "Hz", *both("rate"), source),
        judged.distance("KS distance of weights", *both("weights"), source),
    ]


def _drawn(found: list[Found]) -> Figure:
    others, _ = judged.recorded("song")
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    histogram, distribution = figure.subplots(1, 2)
    histogram.hist(found[0]["all"], bins=40, color=figures.BLUE)
    histogram.set_xlabel("Weight / g_max")
    histogram.set_ylabel("Synapses")
    figures.tidy(histogram)
    for rows, colour, who in ((others, figures.GREY, "Brian2"), (found, figures.BLUE, "neurojax")):
        for i, row in enumerate(rows):
            label = None if i else who
            figures.cumulative(distribution, row["weights"], colour, label)
    distribution.set_xlabel("Weight / g_max")
    distribution.set_ylabel("Part of synapses")
    distribution.legend(frameon=False)
    return figure


STUDIES = {
    "song": Study(
        _once, _judged, _drawn, seconds=100.0, scale=None, least_seconds=1.0, divides=False
    )
}
