"""Put a network of a NIR file on devices and on chips: accuracy, energy, hottest link, losses.

    python -m experiments.deploy runs/net.nir --data digits --dt 1 --synapse linear

The file may be of any tool; what it means is asked (docs/exchange.md), as there is no way to know.
It is tested on numbers, then with its weights in crossbars, and what it did there is priced on each
published chip: neurons on the smallest square mesh of cores, spikes as multicast trees.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array
from rich.console import Console
from rich.table import Table

import hardware as hw
from experiments import _devices, _folder, _on_chips, _run
from experiments._devices import Synapse, Synapses, Write
from experiments._options import Need, other_than, part
from hardware import routing, topology
from hardware.energy import CHIPS, activity, energy
from neurojax._check import MOST
from neurojax.data import Dataset, Split, encoding, load
from neurojax.interchange import Imported, from_nir
from neurojax.network import Network, fold
from neurojax.neurons.sources import StepCurrent
from neurojax.simulation import simulate
from neurojax.weights import Weights

_AT_ONCE = 2**25  # floats of a batch, all steps and neurons


@dataclass(frozen=True)
class Graph:
    """The file, and how its numbers are meant."""

    file: tyro.conf.Positional[Path | None] = None
    """A NIR file."""
    dt: float | None = None
    """Step, ms; there is no default."""
    leak: Literal["exact", "euler"] = "exact"
    """What is left after a step: exp(-dt / tau), or 1 - dt / tau."""
    reset: Literal["hard", "subtract"] = "hard"
    """To v_reset, or by the threshold."""
    input: Literal["hold", "impulse"] = "hold"
    """An arrival lasts one dt, or has unit area."""
    order: Literal["membrane", "synapse"] = "membrane"
    """Arrivals at a synapse act from the next step on, or in this one."""
    time_unit: Literal["s", "ms"] = "s"
    """Of the file's time constants."""


@dataclass(frozen=True)
class Pictures:
    """What it is tested on, and how that is shown."""

    data: str = "digits"
    """digits (embedded), mnist, or another set that experiments.wta_broadcast knows."""
    data_dir: Path | None = None
    """Folder of the data."""
    encoding: Literal["direct", "poisson", "latency"] = "direct"
    """Pixels as currents, as rates of random spikes, or as the time of one spike."""
    max_rate: float = 200.0
    """Spikes a second of a white pixel."""
    gain: float = 1.0
    """What each pixel or its spike is multiplied by."""
    n_steps: int = 20
    """Steps a picture is shown."""
    test_size: int | None = None
    """Use this many test pictures only; without, all of them."""

    needs: ClassVar[tuple[Need, ...]] = (
        other_than("data_dir", "data", "digits"), other_than("max_rate", "encoding", "direct"),
    )  # fmt: skip
    whole: ClassVar = dict(n_steps=(1, MOST), test_size=(1, MOST))
    within: ClassVar = dict(gain="(0, inf)", max_rate="(0, inf)")


@dataclass(frozen=True)
class Devices:
    """Onto what it is put."""

    synapse: Synapse = "ideal"
    """How conductance answers to pulses; ideal: weights stay numbers."""
    n_states: int = 64
    """States of a device."""
    sigma_d2d: float = 0.0
    """Relative variation from device to device of each parameter."""
    write: Write = "exact"
    """How weights are written into devices."""
    neurons_per_core: int = 32
    """Neurons that a core of a chip holds at most."""

    needs: ClassVar[tuple[Need, ...]] = (
        other_than("n_states sigma_d2d write", "synapse", "ideal"),
    )
    whole: ClassVar = dict(n_states=(2, _run.STATES), neurons_per_core=(1, MOST))
    within: ClassVar = dict(sigma_d2d="[0, 1]")


@dataclass(frozen=True)
class Run(_run.Run):
    """Chance, and where results go."""

    out: Path = Path("runs/deploy")


@dataclass(frozen=True)
class Config(Graph, Pictures, Devices, Run):
    """A file, what it is shown, and where it runs."""

    def __post_init__(self):
        _run.require_sound(self)


def run(config: Config) -> dict[str, Any]:
    """Test, write, test again, price; returns what it writes to metrics.json."""
    c, graph, pictures = config, part(config, Graph), part(config, Pictures)
    found = _imported(graph)
    sets = load(c.data, c.data_dir)
    _refuse_unfit(found, sets)
    with _folder.held(c, sets) as folder:
        folder.begin()
        key = jax.random.key(c.seed)
        split = _first(sets.test, c.test_size)
        see = lambda weights: _seen(found, weights, pictures, split, sets.n_classes, key)  # noqa: E731
        numbers = see(found.weights)
        weights, written = _written(found, part(c, Devices), key)
        devices = numbers if c.synapse == "ideal" else see(weights)
        result = {
            "file": str(c.file), "pictures": len(split.labels),
            "layers": {n: x.n for n, x in _priced(found).layers.items()},
            "test_accuracy_numbers": numbers.accuracy, "test_accuracy": devices.accuracy,
            "lost": _lost(c, found, written), **_chips(found, devices, c),
        }  # fmt: skip
        _show(result, Console(highlight=False))
        return folder.finish(result, {})


def _imported(graph: Graph) -> Imported:
    """The network, refused in the words of the command line."""
    if graph.file is None:
        raise ValueError("the first argument must be a NIR file; got none")
    if graph.dt is None:
        raise ValueError("--dt must be given, in ms, as a file does not say its step; got none")
    return from_nir(
        graph.file, dt=graph.dt, leak=graph.leak, reset=graph.reset, input=graph.input,
        order=graph.order, time_unit=graph.time_unit,
    )  # fmt: skip


def _refuse_unfit(found: Imported, sets: Dataset) -> None:
    """One input as large as the pictures, one output of as many for each class."""
    n_in = math.prod(sets.train.images.shape[1:])
    if len(found.inputs) != 1:
        raise ValueError(f"the file must have one Input; got {', '.join(found.inputs)}")
    ((name, shape),) = found.inputs.items()
    if math.prod(shape) != n_in:
        raise ValueError(
            f"--data must have as many pixels as Input {name!r} takes, {math.prod(shape)}; got"
            f" {n_in} of {sets.name}"
        )
    if len(found.outputs) != 1:
        raise ValueError(f"the file must have one Output; got {', '.join(found.outputs)}")
    n = found.net.layers[next(iter(found.outputs.values()))].n
    if n % sets.n_classes:
        raise ValueError(
            f"--data must have classes that divide the outputs, {n}; got {sets.n_classes}"
        )


def _first(split: Split, n: int | None) -> Split:
    if n is not None and n > len(split.labels):
        raise ValueError(f"--test-size must be at most {len(split.labels)}; got {n}")
    return Split(split.images[:n], split.labels[:n])


class _Seen(NamedTuple):
    """What the network made of the test pictures: accuracy, and mean counts of spikes a picture."""

    accuracy: float
    counts: dict[str, Array]
    entered: Array


def _seen(
    found: Imported, weights: dict[str, Weights], pictures: Pictures, split: Split, n_classes: int,
    key: Array,
) -> _Seen:  # fmt: skip
    """All pictures in batches; the class of most output over all steps wins."""
    net, (name,) = found.net, found.inputs
    out = next(iter(found.outputs.values()))
    show = _shown(pictures, found.dt)
    state = net.init()

    @jax.jit
    def batch(weights, images, keys):
        def one(image, key):
            x = show(image, fold(key, "shown"))
            _, z = simulate(
                net, weights, state, {name: x}, n_steps=pictures.n_steps, dt=found.dt,
                key=fold(key, "read"),
            )  # fmt: skip
            entered = jnp.zeros(x.shape[-1]) if x.ndim == 1 else (x != 0).sum(0, dtype=float)
            return {n: x.sum(0) for n, x in z.items()}, entered

        return jax.vmap(one)(images, keys)

    size = sum(layer.n for layer in net.layers.values()) * pictures.n_steps
    at_once = max(1, min(len(split.labels), _AT_ONCE // size))
    right, counts, entered = 0, {n: 0.0 for n in net.layers}, 0.0
    for i in range(0, len(split.labels), at_once):
        images = jnp.asarray(np.asarray(split.images[i : i + at_once]), float)
        images = images.reshape(len(images), -1)
        keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(i + jnp.arange(len(images)))
        total, came = batch(weights, images, keys)
        scores = total[out].reshape(len(images), n_classes, -1).sum(-1)
        right += int((scores.argmax(1) == split.labels[i : i + at_once]).sum())
        counts = {n: counts[n] + np.asarray(x.sum(0), float) for n, x in total.items()}
        entered = entered + np.asarray(came.sum(0), float)
    n = len(split.labels)
    mean = {name: jnp.asarray(x / n, float) for name, x in counts.items()}
    return _Seen(right / n, mean, jnp.asarray(entered / n, float))


def _shown(pictures: Pictures, dt: float) -> Callable[[Array, Array], Array]:
    """A picture [n] as the network sees it."""
    n, gain = pictures.n_steps, pictures.gain
    if pictures.encoding == "direct":
        return lambda x, key: gain * x
    if pictures.encoding == "latency":
        return lambda x, key: gain * encoding.latency(x, n)
    rate = pictures.max_rate
    return lambda x, key: gain * encoding.poisson(key, x, n, dt=dt, max_rate=rate)


def _written(found: Imported, devices: Devices, key: Array) -> tuple[dict[str, Weights], dict]:
    """Weights in devices, biases as they are; and how far each projection is from its numbers."""
    if devices.synapse == "ideal":
        return found.weights, {}
    synapses = Synapses(
        devices.synapse, "bidirectional", devices.n_states, sigma_d2d=devices.sigma_d2d,
        write=devices.write,
    )  # fmt: skip
    names = found.net.plastic()
    make = {
        n: _devices.make_weights(synapses, max(float(jnp.abs(found.weights[n].w).max()), 1e-30))
        for n in names
    }
    moved = hw.transferred(fold(key, "written"), found.weights, make)
    return moved, {n: _distance(found.weights[n], moved[n]) for n in names}


def _distance(old: Any, new: Any) -> dict[str, float]:
    w, held = np.asarray(old.w, float), np.asarray(_devices.held(new), float)
    norm = max(float(np.linalg.norm(w)), 1e-30)
    return {
        "relative_error": float(np.linalg.norm(held - w)) / norm,
        "n_clipped": int(getattr(new, "n_clipped", 0)),
    }


def _spiking(found: Imported) -> set[str]:
    """Layers that send spikes, not potentials."""
    return {n for n, x in found.net.layers.items() if hasattr(x.neuron, "v_th")}


def _priced(found: Imported) -> Network:
    """The network without the neuron that sends biases, which chips have in each neuron."""
    net = found.net
    sources = {n for n, x in net.layers.items() if isinstance(x.neuron, StepCurrent)}
    kept = {n: p for n, p in net.projections.items() if p.pre not in sources}
    return Network({n: x for n, x in net.layers.items() if n not in sources}, kept)


def _chips(found: Imported, seen: _Seen, c: Config) -> dict[str, Any]:
    """J and spikes over the hottest link, a picture."""
    net, (name,) = _priced(found), found.inputs
    edges, n = topology.wiring(net)
    side = math.ceil(math.sqrt(math.ceil(n / c.neurons_per_core)))
    mesh = topology.Mesh(side, side, c.neurons_per_core)
    placement = topology.bisected(edges, n, mesh)
    sent = {
        layer: seen.counts[layer] if layer in _spiking(found) else jnp.full(x.n, float(c.n_steps))
        for layer, x in net.layers.items()
        if any(p.pre == layer for p in net.projections.values()) or layer in _spiking(found)
    }
    inputs = {name: seen.entered}
    did = activity(
        net, sent, placement, mesh, dt=found.dt, n_steps=c.n_steps, inputs=inputs,
        route=routing.multicast,
    )  # fmt: skip
    spikes = jnp.concatenate([sent.get(n, jnp.zeros(x.n)) for n, x in sorted(net.layers.items())])
    hottest = routing.multicast(edges, placement, mesh, spikes).hottest
    return {
        "cores": mesh.n_cores, "neurons": n, "synapses": int((edges.number > 0).sum()),
        "hottest_link": float(hottest.load),
        "activity": {k: float(v) for k, v in did._asdict().items()},
        "energy": {
            chip.name: {
                "scope": chip.scope, "not_published": list(chip.missing),
                **_on_chips.parts(energy(did, chip)),
            }
            for chip in CHIPS
        },
    }  # fmt: skip


def _lost(c: Config, found: Imported, written: dict[str, dict[str, float]]) -> list[str]:
    """What differs from the network that the file came from, a line each."""
    lines = [f"read: {note}" for note in found.notes]
    lines += [f"not in the file: {x}" for x in _beside(c.file)]
    for name, x in written.items():
        clipped = f", {x['n_clipped']} clipped" if x["n_clipped"] else ""
        error = f"{100 * x['relative_error']:.2g}% off"
        lines.append(f"devices: weights of {name} are {error}, {c.n_states} states{clipped}")
    graded = {p.pre for p in found.net.projections.values()} & {*found.net.layers}
    graded -= _spiking(found) | {
        n for n, x in found.net.layers.items() if isinstance(x.neuron, StepCurrent)
    }
    lines += [f"priced as a spike a step: the potential that {n} sends" for n in sorted(graded)]
    return lines


def _beside(file: Path | None) -> list[str]:
    """What the sidecar says that NIR could not hold; without one, nothing is known of it."""
    side = Path(f"{file}.json")
    try:
        content = json.loads(side.read_text()) if side.stat().st_size < 2**26 else {}
        dropped = content.get("dropped", {})
        return [f"{what} of {name}" for name, x in sorted(dropped.items()) for what in sorted(x)]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def _show(found: dict[str, Any], console: Console) -> None:
    numbers, devices = (100 * found[f"test_accuracy{x}"] for x in ("_numbers", ""))
    console.print(
        f"accuracy {numbers:.2f}% on numbers, {devices:.2f}% as deployed;"
        f" {found['neurons']} neurons on {found['cores']} cores,"
        f" hottest link {found['hottest_link']:.4g} spikes a picture"
    )
    shown = ("synaptic", "neuron", "routing", "delivery", "total")
    table = Table("nJ a picture", *shown, box=None)
    for chip, row in found["energy"].items():
        cells = [_on_chips.cell(row[x]) for x in shown]
        if row["lumped"] is not None:
            cells[0] = _on_chips.cell(row["lumped"]) + "*"
        table.add_row(chip, *cells)
    console.print(table)
    console.print("*: whole or in part with neurons, routing and static power; -: not published")
    for line in found["lost"]:
        console.print(line, markup=False)


if __name__ == "__main__":
    _run.main(Config, run)
