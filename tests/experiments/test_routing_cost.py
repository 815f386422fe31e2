"""The study of small-world wiring: its networks, what they cost, and what it writes."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from experiments import _run, routing_cost
from experiments._small_world import Plan, columns, network
from hardware import topology
from neurojax.network import Layer
from neurojax.neurons import LIF, LeakyIntegrator
from neurojax.plasticity import ThreeFactor

# One worker: the tests share what they train.
pytestmark = pytest.mark.xdist_group("routing_cost")

SMALL = (
    "--train-size 320 --epochs 3 --hidden 40 40 --population 4 --fan-in-input 4 --fan-in 4"
    " --fan-in-readout 4 --mesh 4 4 --neurons-per-core 8 --p-rewire 0 1 --seeds 2"
).split()
PLAN = Plan(64, (40, 40), 10, 4, 4, 4, 4, 1.0, 1.0, 1.0)


def study(out, *argv):
    _run.main(routing_cost.Config, routing_cost.run, [*argv, "--out", str(out)])
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "run"
    return out, study(out, *SMALL)


def test_wiring_that_goes_far_costs_more(whole):
    local, random = whole[1]["table"]
    assert (local["p_rewire"], random["p_rewire"]) == (0.0, 1.0)
    assert local["clustering"] > 2 * random["clustering"]
    assert local["path_length"] > 1.5 * random["path_length"]
    for name in ("hops_per_edge", "hops_per_spike", "hottest_link", "latency", "energy_routing"):
        assert 1.2 * local[name] < random[name], name
    # the order along the ring is best for a lattice, and no order for a random graph
    assert local["hops_per_edge"] < local["hops_per_edge_bisected"]
    assert random["hops_per_edge_bisected"] < random["hops_per_edge"]
    for row in (local, random):
        assert row["hops_per_spike"] <= row["hops_per_spike_unicast"]
        parts = ("synaptic", "neuron", "routing", "delivery", "learning")
        assert row["energy"] == pytest.approx(sum(row[f"energy_{part}"] for part in parts))
        assert row["energy_learning"] == 0
        assert row["test_accuracy"] > 0.3  # chance is .1


def test_the_table_is_the_mean_over_seeds(whole):
    for row in whole[1]["table"]:
        mine = [n for n in whole[1]["networks"] if n["p_rewire"] == row["p_rewire"]]
        assert [n["seed"] for n in mine] == [0, 1]
        values = [n["test_accuracy"] for n in mine]
        assert row["test_accuracy"] == pytest.approx(np.mean(values))
        assert row["test_accuracy_sd"] == pytest.approx(np.std(values, ddof=1))
        assert mine[0]["hottest_link"] != mine[1]["hottest_link"]
    assert matplotlib.image.imread(whole[0] / "routing_cost.png").std() > 0.05


@pytest.mark.slow
def test_a_network_does_not_depend_on_those_beside_it(whole, tmp_path):
    others = study(tmp_path, *SMALL, "--seed", "1")["networks"][::2]
    for row, other in zip(others, whole[1]["networks"][1::2], strict=True):
        assert (row["seed"], other["seed"]) == (1, 1)
        # sums of a batch of matrices may be rounded otherwise, and a rare spike tips over
        assert row["test_accuracy"] == pytest.approx(other["test_accuracy"], abs=0.02)
        assert row["hops_per_edge"] == pytest.approx(other["hops_per_edge"], rel=1e-5)
        assert row["hops_per_spike"] == pytest.approx(other["hops_per_spike"], rel=0.02)


def test_what_is_there_is_not_trained_again(whole, monkeypatch):
    out, before = whole
    (out / "metrics.json").unlink()
    monkeypatch.setattr(routing_cost, "_networks", None)
    assert study(out, *SMALL, "--resume")["networks"] == before["networks"]


make = jax.jit(partial(network, PLAN, Layer(1, LIF(), rule=ThreeFactor()), LeakyIntegrator()))


def test_without_rewiring_all_that_a_neuron_hears_is_close():
    mesh = topology.Mesh(4, 4, 8)
    placement = np.asarray(columns(PLAN, mesh))
    np.testing.assert_array_equal(np.sort(np.bincount(placement)), [0] + [8] * 15)
    net = make(jax.random.key(0), jnp.zeros(()))
    pre, post, _ = (np.asarray(x) for x in topology.wiring(net)[0])
    cores = np.arange(16).reshape(4, 4)
    cores[1::2] = cores[1::2, ::-1]
    turn = np.empty(16, int)
    turn[cores.reshape(-1)] = np.arange(16)
    away = np.abs(turn[placement[pre]] - turn[placement[post]])
    # 4 of 40 neurons on a ring of 15 cores, but where the ring is cut open
    assert np.quantile(away, 0.85) <= 1
    assert (np.minimum(away, 15 - away) <= 2).all()


def test_the_readout_of_a_class_sees_all_of_the_ring():
    net = make(jax.random.key(0), jnp.zeros(()))
    heard = np.asarray(net.projections["h1->readout"].connectivity.index).reshape(10, 4, 4)
    for each in heard:  # four neurons, a quarter of the ring apart
        middle = np.sort(np.angle(np.exp(2j * np.pi * each / 40).mean(1)))
        np.testing.assert_allclose(np.diff(middle), np.pi / 2, atol=0.3)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--p-rewire 0 1.5", "--p-rewire must be in [0, 1]; got 1.5"),
        ("--p-rewire 0 0", "--p-rewire must name one or more, each once; got (0.0, 0.0)"),
        ("--hidden 40 30", "--hidden must name layers of one size"),
        ("--fan-in 5", "k must be even and in [2, 255], half on each side; got 5"),
        ("--mesh 2 2", "n must be at most 40, what 4 cores of 10 neurons hold; got 612"),
        ("--seeds 0", "--seeds must be a whole number >= 1; got 0"),
        ("--batch-size 4000", "--batch-size must be at most 1150 pictures"),
    ],
)
def test_a_study_that_cannot_be_is_refused(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        study(tmp_path / "run", *argv.split())
    assert message in capsys.readouterr().err
