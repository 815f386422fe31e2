"""What of a network NIR can hold: what is left of it, and what is not, which `drop` must name."""

from dataclasses import replace
from typing import Any

import numpy as np

from neurojax.interchange import _sidecar
from neurojax.layers import Layer, Projection
from neurojax.network import Network
from neurojax.neurons.leaky import ALIF, LIF
from neurojax.weights import Ideal

__all__ = ["reduced", "unheld"]


def __dir__() -> list[str]:
    return __all__


def reduced(net: Network, weights: dict, drop: set[str]) -> tuple[Network, dict, dict]:
    """What is left of network and weights, and what is not, by layer or projection."""
    if net.gaps:
        raise ValueError(f"gap junctions {sorted(net.gaps)[0]!r}: NIR has none: take them out")
    lost: dict[str, dict[str, Any]] = {}
    layers = {n: _layer(n, x, drop, lost.setdefault(n, {})) for n, x in net.layers.items()}
    projections = {}
    for n, p in net.projections.items():
        projections[n] = _projection(n, p, drop, lost.setdefault(n, {}))
    held = {n: _numbers(n, w, drop, lost.setdefault(n, {})) for n, w in weights.items()}
    held = {n: held[n] for n in projections}
    return Network(layers, projections), held, {n: x for n, x in lost.items() if x}


def _layer(name: str, layer: Layer, drop: set[str], lost: dict[str, Any]) -> Layer:
    neuron = layer.neuron
    if layer.ports:
        raise unheld("layer", name, "NIR has no ports", "give it one synapse")
    if layer.winners is not None:
        raise unheld("layer", name, "NIR has no winners", "pass winners=None")
    if layer.rule is not None:
        _drop("layer", name, "learning", "a rule", drop)
        lost["rule"] = repr(layer.rule)
    if isinstance(neuron, ALIF):
        _drop("layer", name, "adaptation", "a threshold that adapts", drop)
        lost["adaptation"] = _sidecar.adaptation(neuron)
        shared = {f: getattr(neuron, f) for f in LIF.__dataclass_fields__}
        neuron = LIF(**shared)
    if getattr(neuron, "t_ref", None) is not None and "refractory" in drop:
        lost["t_ref_ms"] = np.asarray(neuron.t_ref, float).tolist()
        neuron = replace(neuron, t_ref=None)
    return Layer(layer.n, neuron, layer.synapse)


def _projection(name: str, p: Projection, drop: set[str], lost: dict[str, Any]) -> Projection:
    if p.rule is not None:
        _drop("projection", name, "learning", "a rule", drop)
        lost["rule"] = repr(p.rule)
    if p.release is not None:
        _drop("projection", name, "release", "short-term plasticity", drop)
        lost["release"] = repr(p.release)
    return replace(p, rule=None, release=None)


def _numbers(name: str, w: Any, drop: set[str], lost: dict[str, Any]) -> Ideal:
    if type(w) is Ideal:
        return Ideal(w.w, w.connectivity)
    _drop("projection", name, "devices", f"{type(w).__name__}", drop)
    lost["devices"] = f"weights as they read at the time, of {type(w).__name__}"
    return Ideal(w.w, w.connectivity)


def _drop(what: str, name: str, item: str, has: str, drop: set[str]) -> None:
    if item not in drop:
        raise unheld(what, name, f"NIR cannot hold {has}", f"pass drop=({item!r},) to leave it out")


def unheld(what: str, name: str, problem: str, cure: str = "") -> ValueError:
    """What to raise for a layer or projection that a file cannot hold."""
    return ValueError(f"{what} {name!r}: {problem}{cure and ': '}{cure}")
