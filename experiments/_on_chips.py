"""What a trained network would take on published chips, for an inference and for learning."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from rich.console import Console
from rich.table import Table

from experiments._config import Data
from experiments._training import Trainer, encoded
from hardware import routing, topology
from hardware.energy import CHIPS, Energy, activity, energy
from neurojax._compile import released
from neurojax.data import Rasters, Split
from neurojax.data.event_sets import NAMES as EVENTS
from neurojax.data.ragged import arrays
from neurojax.learning import wta_broadcast as wb
from neurojax.neurons.leaky import LeakyIntegrator

NEURONS_PER_CORE = 32
_AT_ONCE = 500


def report(
    data: Data, batch_size: int, steps: Trainer, average, split: Split, key: Key[Array, ""]
) -> dict[str, Any]:
    """J of each part on each chip, by what the pictures of `split` make the network do.

    Neurons sit on the smallest square mesh of cores of 32 that holds them, where their wiring
    suggests; spikes travel as multicast trees. Learning is one picture more, and its share of
    a change of all plastic synapses. Pictures that come as currents send no spikes.
    """
    system = steps.system
    sent, inputs = _counts(data, system, average, split, key)
    edges, n = topology.wiring(system.network)
    mesh = square(n)
    placement = topology.bisected(edges, n, mesh)
    learning = activity(
        system.network, sent, placement, mesh, dt=system.dt, n_steps=system.n_steps,
        inputs=inputs, n_changes=1 / batch_size, route=routing.multicast,
    )  # fmt: skip
    inference = learning._replace(learning_events=jnp.zeros(()))
    did = {"inference": inference, "learning": learning}
    return {
        "cores": mesh.n_cores,
        "neurons": n,
        "activity": {k: float(v) for k, v in learning._asdict().items()},
        "energy": {
            chip.name: {
                "scope": chip.scope,
                "not_published": list(chip.missing),
                **{task: parts(energy(what, chip)) for task, what in did.items()},
            }
            for chip in CHIPS
        },
    }


def square(n: int) -> topology.Mesh:
    """The smallest square mesh that holds `n` neurons."""
    side = math.ceil(math.sqrt(math.ceil(n / NEURONS_PER_CORE)))
    return topology.Mesh(side, side, NEURONS_PER_CORE)


def parts(e: Energy) -> dict[str, float | None]:
    """Each part of an energy, and their sum, J."""
    parts = {name: None if x is None else float(x) for name, x in e._asdict().items()}
    return parts | {"total": float(e.total)}


def _counts(
    data: Data, system: wb.System, average, split: Split, key: Key[Array, ""]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Mean spikes of each neuron for a picture, and of each input."""
    spiking = [
        n for n in system.taught
        if not isinstance(system.network.layers[n].neuron, LeakyIntegrator)
    ]  # fmt: skip
    weights, tone = average

    @released
    def summed(images, key):
        x = encoded(data, key, images)
        if isinstance(x, Rasters):  # to the end of each recording
            x = jnp.where(x.mask[..., None], x.x.astype(float), 0)
        record = jax.vmap(lambda x: wb.present(system, weights, tone, x, key=key))(x)
        spiking_in = data.encoding != "direct" or data.dataset in EVENTS
        entered = x.sum((0, 1)) if spiking_in else jnp.zeros(x.shape[-1])
        return {n: record[n].z.sum((0, 1)) for n in spiking} | {"input": entered}

    total: dict[str, np.ndarray] = {}
    for i in range(0, len(split.labels), _AT_ONCE):
        images = arrays(split.images[i : i + _AT_ONCE])
        some = summed(images, jax.random.fold_in(key, i))
        total = {n: total.get(n, np.zeros(())) + np.asarray(x, float) for n, x in some.items()}
    mean = {n: jnp.asarray(x / len(split.labels), float) for n, x in total.items()}
    return {n: mean[n] for n in spiking}, {"input": mean["input"]}


def show(found: dict[str, Any], console: Console) -> None:
    """A line a chip, nJ: parts of an inference, their sum, and the sum for a picture to learn."""
    parts = ("synaptic", "neuron", "routing", "delivery")
    table = Table("nJ a picture", *parts, "inference", "learning", box=None)
    for chip, row in found["energy"].items():
        shown = row["inference"]
        cells = [cell(shown[part]) for part in parts]
        if shown["lumped"] is not None:
            cells[0] = cell(shown["lumped"]) + "*"
        learnt = None if row["learning"]["learning"] is None else row["learning"]["total"]
        table.add_row(chip, *cells, cell(shown["total"]), cell(learnt))
    console.print(table)
    console.print("*: whole or in part with neurons, routing and static power; -: not published")


def cell(joule: float | None) -> str:
    """nJ to three digits, or a dash."""
    return "-" if joule is None else f"{float(f'{1e9 * joule:.3g}'):,.10g}"
