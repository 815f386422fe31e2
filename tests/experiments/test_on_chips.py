"""What the main experiment says of its network on published chips."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import _config, _on_chips, _training, wta_broadcast
from experiments._options import part
from hardware import routing, topology
from hardware.energy import CHIPS, activity
from neurojax import data
from neurojax.learning import wta_broadcast as wb

SPIKING = {"readout": "spiking", "encoding": "poisson"}
DT = 0.5  # ms
KEY = jax.random.key(0)


class Priced(NamedTuple):
    shown: _config.Data
    report: dict[str, Any]
    seen: _training.Evaluation
    system: wb.System
    some: data.Split
    average: Any
    counts: tuple[dict, dict]


# --- what a network does ---


@pytest.fixture(scope="module", params=["currents", "spikes"])
def priced(request):
    """Settings, what is reported of an untrained network, and its rates on the same pictures."""
    options = SPIKING if request.param == "spikes" else {}
    c = _config.Config(
        hidden=(24, 20), radius=4, n_steps=8, start=2, batch_size=32, readout_density=0.2,
        readout_population=3, gain_in=8.0, gain_forward=8.0, **options,
    )  # fmt: skip
    c = _config.resolved(c)
    net, rule, shown = (part(c, p) for p in (_config.Network, _config.Learning, _config.Data))
    make = partial(wta_broadcast.fresh, net, rule, _training.Task(64, 10, 8, start=2), 10)
    learner, state = eqx.filter_jit(make)(KEY)
    learner = dataclasses.replace(learner, system=dataclasses.replace(learner.system, dt=DT))
    steps, average = _training.trainer(shown, learner), state.average
    some = data.Split(*(x[:40] for x in data.load("digits").test))
    report = _on_chips.report(shown, 32, steps, average, some, KEY)
    seen = _training.evaluate(steps, average, some, KEY)
    counts = _on_chips._counts(shown, learner.system, average, some, KEY)
    return Priced(shown, report, seen, learner.system, some, average, counts)


@pytest.mark.slow
def test_what_is_priced_is_what_the_network_did(priced):
    shown, report, seen, system, some, *_ = priced
    did = report["activity"]
    events = _training.synaptic_events(system, seen.spikes)  # of the hidden layers alone
    sent = 8 * sum(r.sum() for r in seen.spikes.values())
    assert sent > 0.5
    readout, inputs = did["spikes"] - sent, did["synaptic_events"] - events
    if shown.encoding == "poisson":
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


@pytest.mark.slow
def test_all_that_is_counted_is_that_of_trees_on_the_mesh(priced):
    report, system, (counts, inputs) = priced.report, priced.system, priced.counts
    n = 74 if priced.shown.encoding == "poisson" else 54
    did, edges = report["activity"], topology.wiring(system.network)[0]
    assert (report["cores"], report["neurons"]) == (4, n)  # 32 a core
    assert (did["steps"], did["time"]) == (8, pytest.approx(4e-3))
    mesh = topology.Mesh(2, 2, 32)
    placement = topology.bisected(edges, n, mesh)
    tree, one = (
        activity(system.network, counts, placement, mesh, dt=DT, n_steps=8, inputs=inputs, route=r)
        for r in (routing.multicast, routing.unicast)
    )
    for name in ("hops_ew", "hops_ns", "deliveries", "synaptic_events"):
        assert did[name] == pytest.approx(float(getattr(tree, name)), rel=1e-5), name
    if n > 64:  # on more than two cores a tree has something to share
        assert tree.hops_ew + tree.hops_ns < one.hops_ew + one.hops_ns


@pytest.mark.slow
def test_every_chip_is_there_and_its_parts_add_up(priced, capsys):
    report, system = priced.report, priced.system
    assert list(report["energy"]) == [chip.name for chip in CHIPS]
    for chip in CHIPS:
        row = report["energy"][chip.name]
        assert (row["scope"], row["not_published"]) == (chip.scope, list(chip.missing))
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


@pytest.mark.slow
def test_pictures_are_counted_batch_by_batch_each_with_its_own_chance(priced, monkeypatch):
    shown, _, _, system, some, average, whole = priced
    monkeypatch.setattr(_on_chips, "_AT_ONCE", 20)  # of 40
    if shown.encoding == "direct":
        parts = _on_chips._counts(shown, system, average, some, KEY)
        for one, other in zip(whole[0].values(), parts[0].values(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
        assert not whole[1]["input"].any()
    else:
        twice = data.Split(*(np.concatenate([x[:20], x[:20]]) for x in some))
        sent = np.asarray(_on_chips._counts(shown, system, average, twice, KEY)[1]["input"]) * 40
        assert (np.round(sent) % 2).any()  # the same spikes twice would be even everywhere
        # 8 steps of .2 spikes from a white pixel, within 5 standard errors of Poisson's
        expected = 8 * 0.2 * float(np.sum(twice.images))
        assert sent.sum() == pytest.approx(expected, abs=5 * np.sqrt(expected))


@pytest.mark.parametrize(("n", "side"), [(1, 1), (32, 1), (33, 2), (128, 2), (129, 3), (289, 4)])
def test_the_mesh_is_the_smallest_square_that_holds_the_neurons(n, side):
    assert _on_chips.square(n) == topology.Mesh(side, side, 32)


# --- how it is shown ---


@pytest.mark.parametrize(
    ("joule", "shown"),
    [(None, "-"), (0.0, "0"), (2.364e-11, "0.0236"), (1.2345e-6, "1,230"), (9.876e-9, "9.88")],
)
def test_energies_are_shown_in_nj_to_three_digits(joule, shown):
    assert _on_chips.cell(joule) == shown


def test_a_line_of_the_table_is_that_of_its_chip(capsys):
    nothing = dict.fromkeys(("synaptic", "neuron", "routing", "delivery", "learning", "lumped"))
    apart = nothing | {"synaptic": 1e-9, "neuron": 2e-9, "routing": 3e-9, "delivery": 4e-9}
    learnt = apart | {"learning": 5e-9, "total": 15e-9}
    lumped = nothing | {"lumped": 7e-9, "total": 7e-9}
    found = {
        "first": {"inference": apart | {"total": 10e-9}, "learning": learnt},
        "second": {"inference": lumped, "learning": lumped},
    }
    _on_chips.show({"energy": found}, Console(width=80))
    head, first, second, note = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head[2:] == ["picture", *"synaptic neuron routing delivery inference learning".split()]
    assert first == ["first", "1", "2", "3", "4", "10", "15"]
    assert second == ["second", "7*", "-", "-", "-", "7", "-"]
    assert note[0] == "*:"
