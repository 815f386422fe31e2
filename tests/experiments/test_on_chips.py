"""What the main experiment says of its network on published chips."""

import json

import pytest

from experiments import _run, wta_broadcast
from hardware.energy import CHIPS

SMALL = (
    "--epochs 1 --hidden 24 20 --radius 4 --train-size 320 --n-steps 8 --start 2 --batch-size 32"
    " --readout-density 0.2 --readout-population 3 --report-hardware"
).split()


@pytest.fixture(scope="module", params=["--readout leaky", "--readout spiking --encoding poisson"])
def metrics(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("chips")
    argv = [*SMALL, *request.param.split(), "--out", str(out)]
    _run.main(wta_broadcast.Config, wta_broadcast.run, argv)
    return json.loads((out / "metrics.json").read_text())


def test_what_is_priced_is_what_the_network_did(metrics):
    did, spiking = metrics["hardware"]["activity"], metrics["config"]["readout"] == "spiking"
    events = metrics["synaptic_events_per_inference"]  # of the hidden layers alone
    if spiking:  # and of inputs that are spikes, and of what readout neurons send one another
        assert did["synaptic_events"] > 1.2 * events
    else:
        assert did["synaptic_events"] == pytest.approx(events, rel=1e-4)
        sent = sum(
            8 * n * r for n, r in zip((24, 20), metrics["spikes_per_neuron_step"], strict=True)
        )
        assert did["spikes"] == pytest.approx(sent, rel=1e-4)
    updates = did["updates_active"] + did["updates_idle"]
    assert updates == pytest.approx(8 * metrics["hardware"]["neurons"])


def test_every_chip_is_there_and_its_parts_add_up(metrics):
    energy = metrics["hardware"]["energy"]
    assert list(energy) == [chip.name for chip in CHIPS]
    for row in energy.values():
        for task in ("inference", "learning"):
            parts = [v for k, v in row[task].items() if k != "total" and v is not None]
            assert row[task]["total"] == pytest.approx(sum(parts), rel=1e-5)
        assert row["inference"]["total"] > 0
    loihi = energy["Loihi"]
    assert loihi["inference"]["learning"] == 0
    # each plastic synapse once for a batch of 32 pictures, 120 pJ a visit
    visits = metrics["hardware"]["activity"]["learning_events"]
    assert loihi["learning"]["learning"] == pytest.approx(120e-12 * visits, rel=1e-5)
    assert visits * 32 == pytest.approx(round(visits * 32))
