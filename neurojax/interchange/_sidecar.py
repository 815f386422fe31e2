"""What NIR cannot hold, in a JSON file beside it: an importer may read it, none needs it."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurojax._version import __version__
from neurojax.layers import Layer
from neurojax.network import Network
from neurojax.neurons.leaky import ALIF, LIF

_FORMAT = "neurojax sidecar of NIR 1"
_MOST_BYTES = 2**28
_ADAPTATION = ("tau_adapt", "beta_adapt")


def beside(path: Any) -> Path:
    """The sidecar of a file."""
    path = Path(os.fspath(path))
    return path.with_name(path.name + ".json")


def written(path: Path, how: Any, dropped: dict[str, dict[str, Any]], seed: int) -> None:
    """How the file is to be read, and what it lacks, by layers and projections."""
    content = {
        "format": _FORMAT, "neurojax": __version__, "dt_ms": how.dt, "leak": how.leak,
        "reset": how.reset, "input": how.input, "order": how.order,
        "time_unit_ms": how.unit, "seed_of_check": seed, "dropped": dropped,
    }  # fmt: skip
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def adaptation(neuron: Any) -> dict[str, Any]:
    """What an ALIF has beyond a LIF, as JSON."""
    return {name: np.asarray(getattr(neuron, name), float).tolist() for name in _ADAPTATION}


def restored(net: Network, path: Any) -> Network:
    """The network with what its sidecar brings back: thresholds that adapt."""
    where = repr(os.fspath(path))
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        content = json.loads(Path(os.fspath(path)).read_text())
        if content.get("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        found = {
            name: x["adaptation"] for name, x in content["dropped"].items() if "adaptation" in x
        }
        layers = {n: _adaptive(net.layers[n], x) for n, x in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        cure = "pass the one that to_nir wrote beside the file, or none"
        raise ValueError(f"sidecar {where} does not fit the file: {told}: {cure}") from None
    return replace(net, layers=net.layers | layers)


def _adaptive(layer: Layer, x: dict[str, Any]) -> Layer:
    old = layer.neuron
    if not isinstance(old, LIF):
        raise ValueError(f"only a LIF can adapt; got {type(old).__name__}")
    shared = {name: getattr(old, name) for name in old.__dataclass_fields__}
    more: Any = {n: np.asarray(x[n], float) for n in _ADAPTATION}
    return replace(layer, neuron=ALIF(**shared, **more))
