"""From a network to a graph of NIR: what it can hold, and nothing is skipped in silence."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neurojax import _given
from neurojax._check import brief
from neurojax.interchange import _sidecar
from neurojax.interchange._dynamics import Reading
from neurojax.interchange._file import required
from neurojax.interchange._importing import from_nir
from neurojax.interchange._nodes import Graph, free
from neurojax.interchange._reducing import reduced, unheld
from neurojax.interchange.models import Relay
from neurojax.network import Network
from neurojax.neurons.sources import StepCurrent
from neurojax.simulation import simulate

__all__ = ["to_nir"]

DROPPED = ("adaptation", "devices", "learning", "refractory", "release")
_STEPS, _SEED = 256, 0


def __dir__() -> list[str]:
    return __all__


def to_nir(
    net: Any, weights: Any, path: Any = None, *, dt: float, leak: str = "exact",
    reset: str = "hard", input: str = "hold", order: str = "membrane", time_unit: str = "s",
    outputs: Any = None, drop: Iterable[str] = (),
) -> Any:  # fmt: skip
    """The `nir.NIRGraph` of a network, written to `path` if there is one: without loss, or refused.

    The arguments say how the numbers are to be read again, as those of `from_nir` do: with leak
    "euler" time constants become those that leave the same after a step of Euler's method; r and
    w_in follow from `input`. `dt` is the step in ms that the network runs with. `outputs` maps
    names of Output nodes to layers, by default one for each layer that no other hears.
    LIF fires at its threshold and NIR above it, so v_threshold is the next number below, unless the
    neuron has `spike=nj.surrogate.above`; with reset "subtract", which NIR does not know, it stays
    and the node's metadata tell. A projection back to its own layer, one step late, is written
    without a Delay, as every tool runs it; any other delay is one.
    What has been written is read again and run for 256 steps of random input: its spikes are those
    of the network, bit for bit, or there is no file. Beside it `path` + ".json" says how it was
    made and holds what `drop` names: "learning" (rules), "release" (short-term plasticity),
    "refractory", "adaptation" (ALIF becomes LIF), "devices" (weights as they read now).
    Raises `ValueError` naming layer or projection and cure for all that NIR cannot hold.
    Source: Pedersen et al. (2024), Neuromorphic intermediate representation.

    >>> layers = {"h": nj.Layer(2, nj.LIF(tau_mem=10.0))}
    >>> net = nj.Network(layers, {"in": nj.Projection("x", "h", nj.Dense(3, 2))})
    >>> graph = nj.to_nir(net, net.init_weights(jax.random.key(0)), dt=1.0)
    >>> sorted(graph.nodes), graph.nodes["h"].tau  # s
    (['h', 'in', 'output', 'x'], array([0.01, 0.01]))
    """
    nir = required("nir")
    how = Reading.of(dt, leak, reset, input, order, time_unit)
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network; got {brief(net)}")
    _given.weights(net, weights)
    kept, held, dropped = reduced(net, weights, _names(drop))
    built = Graph(kept, held, how)
    built.write(_sinks(kept, outputs))
    graph = built.graph(nir)
    if path is None:
        _same(kept, held, graph, how, built.outputs)
    else:
        _stored(nir, graph, Path(os.fspath(path)), kept, held, how, dropped, built.outputs)
    return graph


def _names(drop: Iterable[str]) -> set[str]:
    names = {drop} if isinstance(drop, str) else {*drop}
    if unknown := sorted(map(str, names - {*DROPPED})):
        raise ValueError(f"drop must name some of {', '.join(DROPPED)}; got {unknown[0]!r}")
    return names


def _sinks(net: Network, outputs: Any) -> dict[str, str]:
    """Layers to hand out, by the names of Output nodes."""
    if outputs is not None:
        if not isinstance(outputs, dict) or not outputs:
            raise TypeError(
                f"outputs must map names of Output nodes to layers; got {outputs!r:.60}"
            )
        if unknown := sorted(map(str, {*outputs.values()} - net.layers.keys())):
            raise ValueError(f"outputs must be among {sorted(net.layers)}; got {unknown[0]!r}")
        return outputs
    heard = {p.pre for p in net.projections.values() if p.pre != p.post}
    last = [n for n in sorted(net.layers) if n not in heard] or sorted(net.layers)
    last = [n for n in last if not isinstance(net.layers[n].neuron, StepCurrent)]
    taken = {*net.layers, *net.projections, *(p.pre for p in net.projections.values())}
    if len(last) == 1:
        relay = isinstance(net.layers[last[0]].neuron, Relay)
        return {last[0] if relay else free("output", taken): last[0]}
    return {n if isinstance(net.layers[n].neuron, Relay) else free(f"{n}.output", taken): n
            for n in last}  # fmt: skip


def _stored(nir, graph, path: Path, net, weights, how, dropped, outputs) -> None:
    """Write, read again, and only then be there under its name; the sidecar beside it."""
    if not path.parent.is_dir():
        raise FileNotFoundError(2, "no such folder", str(path.parent))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".nir-") as folder:
        new = Path(folder) / "graph.nir"
        nir.write(str(new), graph)
        _same(net, weights, new, how, outputs)
        side = _sidecar.beside(new)
        _sidecar.written(side, how, dropped, _SEED)
        side.replace(_sidecar.beside(path))
        new.replace(path)


def _same(net: Network, weights: dict, source: Any, how: Reading, outputs: dict[str, str]) -> None:
    """Refuse a graph that does not do what the network does, over 256 steps of random input."""
    unit = "s" if how.unit == 1000.0 else "ms"
    again = from_nir(
        source, dt=how.dt, leak=how.leak, reset=how.reset, input=how.input, order=how.order,
        time_unit=unit,
    )  # fmt: skip
    rng = np.random.default_rng(_SEED)
    inputs = {}
    for name, shape in sorted(again.inputs.items()):
        sizes = 2.0 ** rng.integers(-3, 7, (_STEPS, 1))
        inputs[name] = jnp.asarray((rng.random((_STEPS, int(np.prod(shape)))) < 0.3) * sizes, float)
    key = jax.random.key(_SEED)
    ours = _sent(net, weights, inputs, how, key, {*outputs.values()})
    kinds = {n: getattr(net.layers[n].neuron, "v_th", None) is not None for n in outputs.values()}
    theirs = _sent(again.net, again.weights, inputs, how, key, {*again.outputs.values()})
    for out, layer in outputs.items():
        a, b = ours[layer], theirs[again.outputs[out]]
        spiking = kinds[layer]
        # Potentials are sums in another order, perhaps: a few dozen roundings of the largest.
        near = 64 * np.finfo(a.dtype).eps * max(1.0, np.abs(a).max(initial=0.0))
        if (a != b).any() if spiking else not np.allclose(a, b, rtol=1e-4, atol=near):
            step = int(np.argwhere(a != b)[0][0])
            told = f"what was written differs from the network in step {step}"
            raise unheld("layer", layer, told, "tell us, with the network")


def _sent(net: Network, weights: dict, inputs: dict, how: Reading, key: Any, layers: set[str]):
    read = {p.pre for p in net.projections.values()} - {*net.layers}
    probe = lambda records: {n: records[n].z for n in layers}  # noqa: E731
    given = {n: x for n, x in inputs.items() if n in read}
    _, z = simulate(
        net, weights, net.init(), given, n_steps=_STEPS, dt=how.dt, probe=probe, key=key
    )
    return {n: np.asarray(x) for n, x in z.items()}
