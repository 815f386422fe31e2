"""The study of small-world wiring: its networks, what they cost, and what it writes."""

import dataclasses
import json
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import _config, _folder, _run, _small_world, routing_cost
from experiments._options import part
from experiments._small_world import Plan, columns, network
from hardware import topology
from neurojax import data
from neurojax.network import Layer
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.plasticity.three_factor import ThreeFactor, triangle

SMALL = (
    "--train-size 320 --epochs 3 --hidden 40 40 --population 4 --fan-in-input 4 --fan-in 4"
    " --fan-in-readout 4 --mesh 4 4 --neurons-per-core 8 --p-rewire 0 1 --seeds 2"
).split()
RESULTS = Path(routing_cost.__file__).parent / "results"
PLAN = Plan(64, (40, 40), 10, 4, 4, 4, 4, 1.0, 1.0, 1.0)


def study(out, *argv):
    _run.main(routing_cost.Config, routing_cost.run, [*argv, "--out", str(out)])
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "run"
    return out, study(out, *SMALL)


@pytest.mark.slow
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


@pytest.mark.slow
def test_accuracies_are_those_of_the_split_that_they_name(whole):
    assert len(DIGITS.val.labels) != len(DIGITS.test.labels)
    for row in whole[1]["networks"]:
        for name in ("val", "test"):
            right = row[f"{name}_accuracy"] * len(getattr(DIGITS, name).labels)
            assert right == pytest.approx(round(right), abs=1e-4), name
        assert row["val_accuracy"] != row["test_accuracy"]


@pytest.mark.slow
def test_the_study_says_what_it_was_run_on(whole):
    found = whole[1]
    assert (found["n_neurons"], found["chip"], found["placement"]) == (120, "Loihi", "columns")
    seconds = {row["p_rewire"]: row["seconds"] for row in found["networks"]}
    assert found["seconds"] == pytest.approx(sum(seconds.values()))  # two seeds, side by side
    for row in found["networks"]:
        assert 0 < row["spikes_per_neuron_step"] < 0.5


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_is_there_is_not_trained_again(whole, monkeypatch):
    out, before = whole
    (out / "metrics.json").unlink()
    monkeypatch.setattr(routing_cost, "_networks", None)
    assert study(out, *SMALL, "--resume")["networks"] == before["networks"]


make = jax.jit(partial(network, PLAN, Layer(1, LIF(), rule=ThreeFactor()), LeakyIntegrator()))


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_readout_of_a_class_sees_all_of_the_ring():
    net = make(jax.random.key(0), jnp.zeros(()))
    heard = np.asarray(net.projections["h1->readout"].connectivity.index).reshape(10, 4, 4)
    for each in heard:  # four neurons, a quarter of the ring apart
        middle = np.sort(np.angle(np.exp(2j * np.pi * each / 40).mean(1)))
        np.testing.assert_allclose(np.diff(middle), np.pi / 2, atol=0.3)


# --- what a study is made of ---

DIGITS = data.load("digits")
BASE = _config.resolved(_config.Config(dataset="digits"))


def small(**changed):
    """That of a small study, whose settings of the main experiment are all `changed` ones."""
    made = studied(routing_cost.Config(hidden=(40, 40), population=4, epochs=3), 320)
    mine = lambda part: {k: x for k, x in changed.items() if hasattr(part, k)}  # noqa: E731
    net, rule, shown = (dataclasses.replace(p, **mine(p)) for p in made[:3])
    return made._replace(net=net, rule=rule, data=shown)


def studied(c, n_train):
    kinds = routing_cost.Network, routing_cost.Learning, _run.Data
    return routing_cost.Study.of(*(part(c, kind) for kind in kinds), DIGITS, n_train)


def test_defaults_are_those_of_the_published_study():
    published = json.loads((RESULTS / "routing-cost" / "metrics.json").read_text())["config"]
    mine = _folder.jsonable(routing_cost.Config())
    differ = {name for name in mine if mine[name] != published[name]}
    assert differ <= {"out", "overwrite", "seeds"}
    assert (mine["seeds"], mine["seed"], published["seeds"]) == (3, 0, 5)


def test_a_study_takes_sizes_from_its_options_and_gains_from_the_main_experiment(monkeypatch):
    gains = {"gain_in": 1.0, "gain_forward": 2.0, "gain_recurrent": 3.0}
    resolved = _config.resolved
    mixed = lambda *given: dataclasses.replace(resolved(*given), **gains)  # noqa: E731
    monkeypatch.setattr(routing_cost._config, "resolved", mixed)
    c = routing_cost.Config(
        hidden=(40, 40), population=5, fan_in_input=6, fan_in=8, fan_in_readout=7, epochs=3
    )
    made = studied(c, 330)
    assert made.plan == Plan(64, (40, 40), 10, 5, 6, 8, 7, 1.0, 2.0, 3.0)
    rule = made.rule
    assert (made.n_batches, rule.epochs, rule.batch_size) == (10, 3, 32)
    assert made.data.dataset == "digits"


@pytest.mark.slow
def test_a_network_is_taught_as_in_the_main_experiment():
    told = dict(kappa_e=0.7, window_width=0.4, tau_mem=15.0, r_mem=1.5, tau_out=9.0, gain=3.0,
                margin=0.2, target_rate=0.07, homeostasis=0.011, n_steps=13, start=3)  # fmt: skip
    made = small(**told)
    fresh = eqx.filter_jit(lambda key, p: made.learner(key, p).system)
    system = fresh(jax.random.key(0), jnp.zeros(()))
    layer, out = system.network.layers["h1"], system.network.layers["readout"]
    assert layer.rule.kappa_e == jnp.float32(0.7)
    assert eqx.tree_equal(layer.rule.window, triangle(jnp.float32(0.4)))
    assert (layer.neuron.tau_mem, layer.neuron.r_mem) == (15.0, 1.5)
    assert (out.neuron.tau_mem, out.neuron.r_mem) == (9.0, 10.0)  # it hears a tenth
    assert (system.teacher.gain, system.teacher.margin) == (3.0, jnp.float32(0.2))
    held = system.homeostasis.target, system.homeostasis.rate
    assert held == (jnp.float32(0.07), jnp.float32(0.011))
    assert (system.n_classes, system.n_steps, system.start) == (10, 13, 3)
    assert system.population == 4
    assert sorted(system.feedback) == ["h1", "h2"]
    again = fresh(jax.random.key(1), jnp.zeros(()))
    for name in system.feedback:
        assert not eqx.tree_equal(system.feedback[name], again.feedback[name])
    assert not eqx.tree_equal(*system.feedback.values())


def test_a_network_sees_all_pictures_as_the_main_experiment_shows_them(monkeypatch):
    told = []

    def fit(learner, data, **options):
        told.append((learner, data, options))
        return SimpleNamespace(state="state")

    monkeypatch.setattr(routing_cost, "fit", fit)
    made_of = lambda study, key, p: SimpleNamespace(system=(key, p))  # noqa: E731
    monkeypatch.setattr(routing_cost.Study, "learner", made_of)
    monkeypatch.setattr(routing_cost._training, "perturbed", lambda data, key, x: (data, key, x))
    monkeypatch.setattr(routing_cost._training, "encoded", lambda data, key, x: (x, key, data))
    made = small(epochs=7, batch_size=9)
    assert made.trained("key", "p", "images", "labels") == (("key", "p"), "state")
    ((net, shown, how),) = told
    assert (net.system, shown) == (("key", "p"), ("images", "labels"))
    assert (how["key"], how["epochs"], how["batch_size"]) == ("key", 7, 9)
    assert how["augment"]("k", "x") == (made.data, "k", "x")
    assert how["encode"]("k", "x") == ("x", "k", made.data)


def test_a_decision_is_the_class_of_the_highest_score(monkeypatch):
    scores = jnp.array([[0.0, 2.0, 1.0], [3.0, 1.0, 2.0]])
    rates = {"h1": jnp.array([[0.0, 1.0], [1.0, 1.0]])}

    def predict(system, weights, tone, x):
        assert (system, weights, tone, x.shape) == ("system", "w", "tone", (2, 64))
        return SimpleNamespace(scores=scores, rates=rates)

    monkeypatch.setattr(routing_cost.wb, "predict", predict)
    state = SimpleNamespace(average=("w", "tone"))
    decided, mean = small().seen("system", state, jnp.zeros((2, 8, 8)))
    assert decided.tolist() == [1, 0]
    assert mean["h1"].tolist() == [0.5, 1.0]


def test_a_row_of_the_table_is_mean_and_spread_over_seeds():
    rows = [
        {"p_rewire": 0.1, "seed": i, "seconds": 9.0, "energy": e, "latency": 2.0}
        for i, e in enumerate((1.0, 2.0, 6.0))
    ]
    assert routing_cost._summary(rows) == {
        "p_rewire": 0.1, "n_seeds": 3, "energy": 3.0, "energy_sd": pytest.approx(7**0.5),
        "latency": 2.0, "latency_sd": 0.0,
    }  # fmt: skip
    one = routing_cost._summary(rows[:1])
    assert (one["n_seeds"], one["energy"], one["energy_sd"]) == (1, 1.0, None)


def test_a_line_says_what_a_network_costs():
    row = {"p_rewire": 0.03, "test_accuracy": 0.98765, "hops_per_spike": 1.25,
           "hottest_link": 7.5, "energy": 4.25e-7}  # fmt: skip
    line = routing_cost._line([row], 12.34)
    assert line == (
        "p 0.03  test  98.77%    1.2 hops a spike  hottest link    7.5 spikes"
        "   425.0 nJ an inference  12.3 s"
    )


def test_a_study_is_of_the_mesh_and_the_probabilities_asked_for(tmp_path, monkeypatch):
    given = []

    def networks(each, study, sets, mesh, placement, p, seeds):
        given.append((study, mesh, placement, p, seeds))
        row = {"p_rewire": p, "test_accuracy": 0.5, "hops_per_spike": 1.0}
        return [row | {"seed": i, "hottest_link": 2.0, "energy": 3.0 + i} for i in range(2)]

    monkeypatch.setattr(routing_cost, "_networks", networks)
    monkeypatch.setattr(routing_cost._world_figure, "knee", lambda table: Figure())
    n_train = len(DIGITS.train.labels)
    c = routing_cost.Config(  # a batch may be all pictures there are
        out=tmp_path / "run", batch_size=n_train, seeds=2, p_rewire=(0.0, 0.3), mesh=(7, 9),
        neurons_per_core=11,
    )  # fmt: skip
    found = routing_cost.run(c)
    assert [p for *_, p, _ in given] == [0.0, 0.3]
    for made, mesh, placement, _, seeds in given:
        assert (made, mesh) == (studied(c, n_train), topology.Mesh(7, 9, 11))
        assert seeds == range(2)
        assert placement.shape == (612,)
    assert found["n_neurons"] == 612
    assert [row["p_rewire"] for row in found["table"]] == [0.0, 0.3]
    assert [row["energy"] for row in found["networks"]] == [3.0, 4.0] * 2
    with pytest.raises(ValueError, match=f"--batch-size must be at most {n_train} pictures"):
        routing_cost.run(dataclasses.replace(c, batch_size=n_train + 1, overwrite=True))
    with pytest.raises(ValueError, match="--batch-size must be at most 100 pictures; got 101"):
        routing_cost.run(dataclasses.replace(c, batch_size=101, train_size=100, overwrite=True))


LEAST = {"seed": 0, "seeds": 1, "epochs": 1, "batch_size": 1, "train_size": 1, "population": 1,
         "fan_in_input": 1, "fan_in": 2, "fan_in_readout": 1, "neurons_per_core": 1}  # fmt: skip


@pytest.mark.parametrize("name", LEAST)
def test_the_least_of_each_number_is_taken_and_one_less_refused(name):
    assert getattr(routing_cost.Config(**{name: LEAST[name]}), name) == LEAST[name]
    below, option = LEAST[name] - 1, _run.dashed(name)
    with pytest.raises(ValueError, match=f"--{option} must be .* >= {LEAST[name]}; got {below}"):
        routing_cost.Config(**{name: below})


def test_hidden_layers_of_three_neurons_are_the_least():
    assert routing_cost.Config(hidden=(3, 3), fan_in=2, fan_in_readout=1).hidden == (3, 3)
    for hidden in ((), (0, 0)):
        with pytest.raises(ValueError, match="--hidden must name layers of one size"):
            routing_cost.Config(hidden=hidden)
    with pytest.raises(ValueError, match="--p-rewire must name one or more"):
        routing_cost.Config(p_rewire=())


@pytest.mark.slow
def test_the_price_of_an_inference_is_that_of_its_links_counted_one_by_one():
    """In steps of 20 ns, so that links are busy for a good part of the time."""
    net, mesh = make(jax.random.key(0), jnp.ones(())), topology.Mesh(4, 4, 8)
    system = SimpleNamespace(network=net, n_steps=10, dt=2e-5)
    rates = {n: jax.random.uniform(jax.random.key(i), 40) for i, n in enumerate(("h1", "h2"))}
    rates = jax.tree.map(lambda r: 0.1 * r, rates)
    core = np.asarray(columns(PLAN, mesh))
    got = _small_world.price(system, rates, jnp.asarray(core), mesh)
    pre, post, _ = (np.asarray(x) for x in topology.wiring(net)[0])
    spikes = 10 * np.concatenate([rates["h1"], rates["h2"], np.zeros(40)])

    def path(a, b):
        """Links, each the core that it leaves and its direction: the row first."""
        (x, y), (u, v) = (a % 4, a // 4), (b % 4, b // 4)
        row = [((i, y), "ew") for i in range(x, u, np.sign(u - x) or 1)]
        links = row + [((u, j), "ns") for j in range(y, v, np.sign(v - y) or 1)]
        return [(at, way, np.sign(u - x) if way == "ew" else np.sign(v - y)) for at, way in links]

    paths = [path(core[a], core[b]) for a, b in zip(pre, post, strict=True)]
    cores = {a: {core[b] for b in post[pre == a]} for a in set(pre)}
    trees = {a: {link for b in to for link in path(core[a], b)} for a, to in cores.items()}
    alone = {a: [link for b in to for link in path(core[a], b)] for a, to in cores.items()}
    load = Counter()
    for a, links in trees.items():
        load.update(dict.fromkeys(links, spikes[a]))
    rho = {link: n / (10 * 2e-5 * 1e-3) * 6.5e-9 for link, n in load.items()}  # of a second
    assert 0.1 < max(rho.values()) < 0.9
    late = [
        2.1e-9 + sum({"ew": 4.1e-9, "ns": 6.5e-9}[way] for _, way, _ in links)
        + sum(6.5e-9 * rho[link] / (2 * (1 - rho[link])) for link in links)
        for links in paths
    ]  # fmt: skip
    hops = lambda of: sum(spikes[a] * len(of[a]) for a in of) / spikes.sum()  # noqa: E731
    close = dict(rtol=2e-5)  # as many roundings as a row of sums has
    np.testing.assert_allclose(got.hops_per_edge, np.mean([len(p) for p in paths]), **close)
    np.testing.assert_allclose(got.hops_per_spike_unicast, hops(alone), **close)
    np.testing.assert_allclose(got.hops_per_spike, hops(trees), **close)
    np.testing.assert_allclose(got.hottest_link, max(load.values()), **close)
    np.testing.assert_allclose(got.latency, np.mean(late), **close)
    np.testing.assert_allclose(got.burst, max(load.values()) / 10 * 6.5e-9, **close)
    events = spikes @ np.bincount(pre, minlength=120)
    np.testing.assert_allclose(got.energy.synaptic, 23.6e-12 * events, **close)
    active = spikes.sum()
    np.testing.assert_allclose(
        got.energy.neuron, 81e-12 * active + 52e-12 * (1200 - active), **close
    )
    by_way = Counter()
    for a, links in trees.items():
        for _, way, _ in links:
            by_way[way] += spikes[a]
    np.testing.assert_allclose(
        got.energy.routing, 3e-12 * by_way["ew"] + 4e-12 * by_way["ns"], **close
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--p-rewire 0 1.5", "--p-rewire must be in [0, 1]; got 1.5"),
        ("--p-rewire 0 0", "--p-rewire must name one or more, each once; got (0.0, 0.0)"),
        ("--hidden 40 30", "--hidden must name layers of one size"),
        ("--fan-in 5", "--fan-in must be even, half on each side, and below 256; got 5"),
        ("--mesh 2 2", "--mesh must hold 612 neurons, 62 cores of 10; got 4"),
        ("--seeds 0", "--seeds must be a whole number >= 1; got 0"),
        ("--batch-size 4000", "--batch-size must be at most 1150 pictures"),
    ],
)
def test_a_study_that_cannot_be_is_refused(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        study(tmp_path / "run", *argv.split())
    assert message in capsys.readouterr().err
