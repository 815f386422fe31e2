"""What the main experiment says of its network on published chips."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from rich.console import Console

from experiments import _config, _on_chips, _training, wta_broadcast
from hardware.energy import CHIPS
from neurojax import data

# One worker: the tests share what they train.
pytestmark = pytest.mark.xdist_group("on_chips")

SPIKING = {"readout": "spiking", "encoding": "poisson"}


@pytest.fixture(scope="module", params=["currents", "spikes"])
def priced(request):
    """Settings, what is reported of an untrained network, and its rates on the same pictures."""
    options = SPIKING if request.param == "spikes" else {}
    c = _config.Config(
        hidden=(24, 20), radius=4, n_steps=8, start=2, batch_size=32, readout_density=0.2,
        readout_population=3, gain_in=8.0, gain_forward=8.0, **options,
    )  # fmt: skip
    c, tx = _config.resolved(c), optax.sgd(0.1)
    make = lambda key: wta_broadcast.fresh(c, 64, 10, 8, tx, key)  # noqa: E731
    system, state = eqx.filter_jit(make)(jax.random.key(0))
    steps = _training.trainer(c, system, tx, 10)
    some = data.Split(*(x[:40] for x in data.load("digits").test))
    report = _on_chips.report(c, steps, state.average, some)
    return c, report, _training.evaluate(c, steps, state.average, some), system, some


def test_what_is_priced_is_what_the_network_did(priced):
    c, report, seen, system, some = priced
    did = report["activity"]
    events = _training.synaptic_events(system, seen.spikes)  # of the hidden layers alone
    sent = 8 * sum(r.sum() for r in seen.spikes.values())
    assert sent > 0.5
    readout, inputs = did["spikes"] - sent, did["synaptic_events"] - events
    if c.encoding == "poisson":
        # a readout neuron inhibits the 27 of other classes, an input reaches 24 neurons
        n_in = (inputs - 27 * readout) / 24
        expected = (
            8 * 0.2 * float(np.sum(some.images)) / 40
        )  # 8 steps of .2 spikes from a white pixel
        assert n_in == pytest.approx(expected, abs=5 * np.sqrt(expected / 40))  # as Poisson's
        assert readout >= -1e-3
    else:
        assert inputs == pytest.approx(0, abs=1e-4 * events)
        assert readout == pytest.approx(0, abs=1e-4 * sent)
    assert did["updates_active"] + did["updates_idle"] == pytest.approx(8 * report["neurons"])


def test_every_chip_is_there_and_its_parts_add_up(priced, capsys):
    _, report, _, system, _ = priced
    assert list(report["energy"]) == [chip.name for chip in CHIPS]
    for row in report["energy"].values():
        for task in ("inference", "learning"):
            parts = [v for k, v in row[task].items() if k != "total" and v is not None]
            assert row[task]["total"] == pytest.approx(sum(parts), rel=1e-5)
        assert row["inference"]["total"] > 0
    loihi = report["energy"]["Loihi"]
    assert loihi["inference"]["learning"] == 0
    # each plastic synapse once for a batch of 32 pictures, 120 pJ a visit
    plastic = [system.network.projections[n].connectivity for n in system.network.plastic()]
    visits = sum((np.asarray(wiring.edges().number) > 0).sum() for wiring in plastic) / 32
    assert loihi["learning"]["learning"] == pytest.approx(120e-12 * visits, rel=1e-5)
    _on_chips.show(report, Console(width=80))
    said = capsys.readouterr().out
    assert all(chip.name.split(",")[0] in said for chip in CHIPS)
    assert max(map(len, said.splitlines())) <= 80
