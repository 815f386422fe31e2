"""Any learner by one command: what each reads, what it refuses, what it leaves, how it goes on."""

import json
import signal
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import _config, _learners, _options, _run, _training, learn, wta_broadcast
from experiments._learners import RECIPES, Given
from experiments._options import part
from neurojax import checkpoint, data
from neurojax.learning import DFA, Backprop, Perceptron, perceptron
from neurojax.learning._progress import Progress

NET = (
    "--learner backprop --hidden 12 9 --epochs 3 --train-size 200 --batch-size 20 --optimiser sgd"
    " --lr 0.3"
).split()
SPIKING = (
    "--learner wta_broadcast --hidden 16 --recurrence none --epochs 2 --train-size 96"
    " --n-steps 6 --start 2 --readout-density 0.5 --readout-population 2"
).split()
each_learner = pytest.mark.parametrize("name", RECIPES)


def config(name, **options):
    """Of a small net, resolved for 200 pictures."""
    small = dict(hidden=(8, 4), batch_size=4, epochs=1)
    spiking = dict(n_steps=4, start=1, recurrence="none")
    read = {k: v for k, v in spiking.items() if k in RECIPES[name].reads.split()}
    return learn.resolved(learn.Config(learner=name, **(small | read | options)), 200)


def given(c):
    """What a learner is made of: six inputs, three classes, ten batches."""
    parts = part(c, learn.Network), part(c, learn.Learner)
    task = _training.Task(6, 3, 4, 1)
    return Given(*parts, task, 10, 0.5, 0.25, system=_learners.system(c))


def fresh(c, key):
    return learn.fresh(given(c), part(c, _config.Devices), key)


@pytest.fixture(autouse=True)
def _as_the_command_has_it(monkeypatch):
    monkeypatch.delenv("NEUROJAX_DATA", raising=False)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def trained(out, argv, *, draw=False):
    """Metrics of a run through its command line; without `draw`, figures are empty."""
    with pytest.MonkeyPatch.context() as patch:
        for name in () if draw else ("learning_curve", "weights"):
            patch.setattr(learn.plotting, name, lambda *args, **options: Figure((1, 1)))
        _run.main(learn.Config, learn.run, [*argv, "--out", str(out)])
    return json.loads((out / "metrics.json").read_text())


def refused(capsys, argv) -> str:
    """The only line on stderr of a run that ends before it begins."""
    with pytest.raises(SystemExit) as end:
        _run.main(learn.Config, learn.run, list(argv))
    assert end.value.code == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return said.err


def outcome(metrics):
    """Metrics less what may differ between two equal runs: time, place and commit."""
    kept = {k: v for k, v in metrics.items() if not k.startswith("seconds")}
    kept.pop("git_revision")
    places = ("out", "resume", "overwrite")
    return kept | {"config": {k: v for k, v in kept["config"].items() if k not in places}}


# --- every learner ---


@each_learner
@pytest.mark.parametrize("synapse", ["ideal", pytest.param("linear", marks=pytest.mark.slow)])
def test_each_name_is_a_learner_that_takes_the_data(name, synapse):
    if synapse != "ideal" and RECIPES[name].numbers_only:
        pytest.skip(RECIPES[name].numbers_only)
    c = config(name, synapse=synapse)

    def first(key):
        learner, state = fresh(c, key)
        x, y = jnp.ones((4, 6)), jnp.array([0, 1, 2, 0])
        after, info = learner.step(state, x, y, key=key)
        return state, after, learner.predict(after, x, key=key), info

    before, after, scores, info = jax.eval_shape(first, jax.random.key(0))
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert scores.shape == (4, 3)
    assert all(x.shape == () for x in info.values())


def test_every_name_can_be_typed_and_every_default_is_an_option():
    assert get_args(_learners.Name) == (*RECIPES,)
    options = {f.name for f in fields(learn.Config)}
    for recipe in RECIPES.values():
        told = {*recipe.usual}.union(*recipe.by_data.values())
        assert told | {*recipe.reads.split()} <= options


@each_learner
@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_the_help_tells_the_defaults_in_force(name, dataset):
    c = learn.resolved(learn.Config(learner=name, dataset=dataset))
    unset = [f.name for f in fields(c) if f.default is None and f.name not in _WITHOUT]
    for option in unset:
        text, value = _learners.told(name, option), getattr(c, option)
        assert (text is None) == (value is None), option
        if value is not None:
            usual, *others = text.split(", ")
            here = dict(x.split(": ") for x in others).get(dataset, usual)
            assert here == _options.shown(value), option


_WITHOUT = ("data_dir", "train_size", "w_max")


@each_learner
def test_what_a_learner_does_not_read_is_refused(name):
    reads = RECIPES[name].reads.split()
    given = dict(
        activation="tanh", recurrence="dense", readout_density=0.5, readout_population=3,
        freeze_hidden=True, lr_readout=0.5, schedule="cosine", weight_decay=0.5, clip=0.5,
        n_steps=7, start=3, presentation="rows", optimiser="sgd", init_gain=0.5, beta=0.5,
        n_points=4, active=0.5, n_blocks=3,
    )  # fmt: skip
    for option, value in given.items():
        make = partial(learn.Config, learner=name, **{option: value})
        if option in reads:
            make()
            continue
        with pytest.raises(ValueError, match=rf"--{option.replace('_', '-')}.* needs .*--learner"):
            make()


def test_steps_are_those_that_were_asked_for():
    w, g = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([3.0, -4.0])}

    def after(n=1, **options):
        c = config("backprop", lr=0.5, **options)
        tx = given(c).tx
        state, now = tx.init(w), w
        for _ in range(n):
            dw, state = tx.update(g, state, now)
            now = jax.tree.map(jnp.add, now, dw)
        return np.asarray(now["w"] - w["w"])

    plain = np.array([-1.5, 2.0])  # - lr g
    np.testing.assert_allclose(after(optimiser="sgd"), plain, rtol=1e-6)
    np.testing.assert_allclose(after(2, optimiser="momentum"), plain * 2.9, rtol=1e-6)
    np.testing.assert_allclose(after(optimiser="sgd", clip=1.0), plain / 5, rtol=1e-6)
    decayed = plain - 0.5 * 0.1 * np.array([3.0, 4.0])
    np.testing.assert_allclose(after(optimiser="sgd", weight_decay=0.1), decayed, rtol=1e-6)
    halves = np.cos(np.pi * np.arange(10) / 10) / 2 + 0.5  # over the ten batches
    falling = after(10, optimiser="sgd", schedule="cosine")
    np.testing.assert_allclose(falling, plain * halves.sum(), rtol=1e-5)
    np.testing.assert_allclose(after(optimiser="adam"), [-0.5, 0.5], rtol=1e-4)


@pytest.mark.parametrize("name", ["backprop", "counter_current"])
def test_frozen_hidden_layers_stay_as_they_were_drawn(name):
    c = config(name, freeze_hidden=True, optimiser="sgd", lr=0.1)

    @eqx.filter_jit
    def first(key):
        learner, state = fresh(c, key)
        x = jax.random.normal(key, (4, 6))
        return state, learner.step(state, x, jnp.array([0, 1, 2, 0]), key=key)[0]

    state, after = first(jax.random.key(0))
    moved = {n for n, w in learn.plastic(after).items() if (w.w != state.weights[n].w).any()}
    assert moved == ({"w3"} if name == "backprop" else {"u3", "v1", "v2", "v3"})


# --- the system of the other experiment ---


@pytest.mark.parametrize("name", ["wta_broadcast", "surrogate"])
@pytest.mark.parametrize(
    "options",
    [
        dict(hidden=(7,), recurrence="none", lr=0.25, lr_readout=0.5, readout_density=0.5),
        dict(dataset="mnist", synapse="linear", optimiser="sgd", epochs=3),
        dict(dataset="idx", presentation="rows", start=-3, weight_decay=0.5),
        dict(encoding="poisson", max_rate=50.0, n_steps=9, start=4, freeze_hidden=True),
    ],
)
def test_its_options_are_those_of_its_own_experiment(name, options):
    kind = _learners.surrogate_reference.Config if name == "surrogate" else _config.Config
    theirs = _config.resolved(kind(**options), 3000)
    ours = learn.resolved(learn.Config(learner=name, **options), 3000)
    assert _learners.of_the_system(ours) == replace(theirs, out=kind.out)
    shared = {f.name for f in fields(ours)} & {f.name for f in fields(theirs)} - {"out"}
    assert {n: getattr(ours, n) for n in shared} == {n: getattr(theirs, n) for n in shared}


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "--synapse linear --write open-loop --sigma-d2d 0.1"])
def test_its_numbers_are_those_of_its_own_experiment(tmp_path, more, monkeypatch):
    monkeypatch.setattr(wta_broadcast, "_raster", lambda *args: Figure((1, 1)))
    ours = trained(tmp_path / "ours", [*SPIKING, *more.split()])
    argv = [*SPIKING[2:], *more.split(), "--out", str(tmp_path / "theirs")]
    _run.main(wta_broadcast.Config, wta_broadcast.run, argv)
    theirs = json.loads((tmp_path / "theirs" / "metrics.json").read_text())
    same = ["test_accuracy", "val_accuracy", "train_accuracy"] + ["devices"] * bool(more)
    assert {k: ours[k] for k in same} == {k: theirs[k] for k in same}


# --- one run, and what it leaves ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return out, trained(out, NET, draw=True)


def test_metrics_hold_all_that_is_asked_for(whole):
    out, m = whole
    assert len(m["val_accuracy"]) == len(m["train_accuracy"]) == len(m["seconds_per_epoch"]) == 3
    assert m["val_accuracy"][-1] > m["val_accuracy"][0] > 0.1
    sets = data.load("digits")
    assert (m["n_train"], m["n_test"]) == (200, len(sets.test.labels))
    right = m["test_accuracy"] * m["n_test"]
    assert right == pytest.approx(round(right))
    assert m["n_synapses"] == 65 * 12 + 13 * 9 + 10 * 10
    assert m["weight_updates"] == 3 * 10 * m["n_synapses"]
    assert "devices" not in m
    c = m["config"]
    assert (c["lr"], c["optimiser"], c["recurrence"], c["start"]) == (0.3, "sgd", None, None)
    assert m["versions"]["jax"] == jax.__version__
    assert {p.name for p in out.iterdir()} >= {
        "metrics.json",
        "run.json",
        "SHA256SUMS",
        "checkpoints",
        "learning_curve.png",
        "weights.png",
    }


def test_the_test_is_what_the_last_state_makes_of_it(whole):
    out, m = whole
    c = learn.resolved(
        learn.Config(learner="backprop", hidden=(12, 9), batch_size=20, epochs=3, optimiser="sgd")
    )
    sets = data.load("digits")
    net = Perceptron((64, 12, 9, 10), Backprop(), given(c).tx)
    _, state, _ = checkpoint.restore(out / "checkpoints", net.init(jax.random.key(5)))
    a = sets.test.images.reshape(-1, 64)
    for i, w in enumerate(state.weights.values(), 1):
        z = a @ np.asarray(w.w)[:, :-1].T + np.asarray(w.w)[:, -1]
        a = np.tanh(z) if i < 3 else z
    one_picture = 1 / m["n_test"] + 1e-9  # a near tie that rounding decides
    found = np.mean(a.argmax(1) == sets.test.labels)
    assert m["test_accuracy"] == pytest.approx(found, abs=one_picture)


def test_frozen_arrays_are_never_updated(tmp_path):
    m = trained(tmp_path, [*NET, "--freeze-hidden"])
    assert m["weight_updates"] == 3 * 10 * 100


@pytest.mark.slow
def test_devices_of_many_blocks_are_read_and_counted_together(tmp_path):
    words = "--learner noprop --hidden 8 8 --n-blocks 3 --epochs 1 --train-size 160"
    m = trained(tmp_path, [*words.split(), "--synapse", "linear", "--batch-size", "32"], draw=True)
    assert sum(d["n_synapses"] for d in m["devices"].values()) == m["n_synapses"]
    assert all(d["n_pulses"] > 0 for d in m["devices"].values())
    assert m["weight_updates"] == 5 * m["n_synapses"]


@pytest.mark.slow
def test_on_devices_pulses_are_counted(tmp_path):
    m = trained(tmp_path, [*NET, "--hidden", "12", "--epochs", "1", "--synapse", "linear"])
    assert set(m["devices"]) == {"w1", "w2"}
    assert all(d["n_pulses"] > 0 and d["energy"] > 0 for d in m["devices"].values())
    assert sum(d["n_synapses"] for d in m["devices"].values()) == m["n_synapses"]


def test_where_no_reach_is_given_it_is_that_of_the_fan_in():
    wiring = perceptron.Dense(25, 3)
    make = learn.make_weights(config("backprop", synapse="linear"), 10.0)
    held = make(jnp.zeros((3, 25)), wiring, jax.random.key(0))
    assert float(held.w_max) == pytest.approx(2.0)  # 10 / sqrt(25)
    make = learn.make_weights(config("backprop", synapse="linear", w_max=0.5), 10.0)
    assert float(make(jnp.zeros((3, 25)), wiring, jax.random.key(0)).w_max) == 0.5


# --- to go on ---


@pytest.mark.parametrize("epochs", [0, 2])
def test_an_interrupted_run_goes_on_to_the_same_end(whole, tmp_path, monkeypatch, epochs):
    shown = Progress.show

    def interrupt(bar, *sums):
        shown(bar, *sums)
        if bar.epoch == epochs and bar._batches > 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "show", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, NET)
    assert (checkpoint.latest(tmp_path / "checkpoints") or 0) == epochs
    assert_same_end(tmp_path, trained(tmp_path, [*NET, "--resume"]), *whole)


def assert_same_end(out, metrics, whole_out, whole_metrics):
    assert outcome(metrics) == outcome(whole_metrics)
    c = learn.resolved(
        learn.Config(learner="backprop", hidden=(12, 9), batch_size=20, epochs=3, optimiser="sgd")
    )
    net = Perceptron((64, 12, 9, 10), Backprop(), given(c).tx)
    a, b = (
        checkpoint.restore(at / "checkpoints", net.init(jax.random.key(5)))[:2]
        for at in (out, whole_out)
    )
    assert a[0] == b[0] == 3
    assert eqx.tree_equal(a[1], b[1])


@pytest.mark.slow
def test_rates_that_stay_make_a_longer_run_the_same_as_one_that_went_on(whole, tmp_path):
    first = trained(tmp_path, [*NET, "--epochs", "2"])
    assert len(first["val_accuracy"]) == 2
    longer = trained(tmp_path, [*NET, "--resume"])
    assert longer["epochs_planned"] == [2, 2, 3]
    kept = {k: v for k, v in outcome(longer).items() if k != "epochs_planned"}
    assert kept == {k: v for k, v in outcome(whole[1]).items() if k != "epochs_planned"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_signal_changes_the_end(whole, tmp_path, number):
    words = [sys.executable, "-u", "-m", "experiments.learn", *NET, "--out", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch   1/"):
                break
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    if process.returncode:  # it may have come to its end before
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
        assert number == signal.SIGKILL or said.count("\n") == 1
    assert_same_end(tmp_path, trained(tmp_path, [*NET, "--resume"]), *whole)


def test_a_training_that_is_lost_ends_in_one_line(tmp_path, capsys):
    argv = [*NET, "--activation", "relu", "--lr", "1e30", "--out", str(tmp_path)]
    said = refused(capsys, argv)
    assert said.startswith("error: weights.w1.w, weights.w2.w, weights.w3.w must stay finite; got ")
    assert said.endswith(" in batch 2 of epoch 1; pass a smaller --lr than 1e+30\n")
    assert not (tmp_path / "metrics.json").exists()


# --- bad input ---


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--learner dfaa", "--learner must be {wta_broadcast,surrogate,backprop,"),
        ("--batch-size 0", "--batch-size must be a whole number >= 1; got 0"),
        ("--hidden 8 0", "--hidden must name one or more layers of >= 1 neurons; got (8, 0)"),
        ("--lr nan", "--lr must be in [0, inf); got nan"),
        ("--clip -1", "--clip must be in [0, inf); got -1.0"),
        ("--epochs 0", "--epochs must be a whole number >= 1; got 0"),
        ("--batch-size 201", "--batch-size must be at most 200 pictures; got 201"),
        ("--train-size 9999", "--train-size must be at most 1150, all that there are; got 9999"),
        ("--n-steps 5", "--n-steps 5 needs --learner "),
        ("--recurrence local", "--recurrence local needs --learner "),
        ("--learner eprop --recurrence local", "--recurrence must be dense or none for --"),
        ("--learner dfa --freeze-hidden", "--freeze-hidden needs "),
        ("--learner equilibrium --n-points 3", "--n-points must be 1 or even; got 3: pass 4"),
        ("--learner equilibrium --beta 0", "--beta must be in (0, inf); got 0.0"),
        ("--learner noprop --n-blocks 0", "--n-blocks must be a whole number >= 1; got 0"),
        ("--learner noprop --hidden 9", "--hidden must be two layers for --learner noprop, that "),
        ("--learner zeroth_order --active 0", "--active must be in (0, 1]; got 0.0"),
        ("--learner boltzmann --hidden 9", "--hidden must add up to a multiple of 4 from 8 on"),
        ("--learner decolle --start 20", "--start must be in [-20, 20); got 20"),
        ("--sigma-d2d 0.1", "--sigma-d2d 0.1 needs a --synapse other than ideal; got --synapse id"),
        ("--hidden 1000000 1000000", "what --hidden asks for would take 32 TB; "),
        ("--dataset digit", "--dataset must be digits, mnist, idx, mnist1d, moving-digits, nmnist"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(argv, message, tmp_path, capsys):
    out = tmp_path / "run"
    said = refused(capsys, [*NET, "--out", str(out), *argv.split()])
    assert said.startswith(f"error: {message}")
    assert not out.exists() or not any(out.iterdir())


def test_devices_are_refused_for_what_needs_numbers(monkeypatch, tmp_path, capsys):
    bare = RECIPES["dfa"]._replace(numbers_only="it holds its weights as floats")
    monkeypatch.setitem(RECIPES, "dfa", bare)
    argv = [*NET, "--learner", "dfa", "--synapse", "linear", "--out", str(tmp_path / "run")]
    assert refused(capsys, argv) == (
        "error: --synapse must be ideal for --learner dfa: it holds its weights as floats;"
        " got linear\n"
    )
    assert not (tmp_path / "run").exists()


def test_data_that_a_learner_cannot_take_are_refused_before_anything_is_written(
    monkeypatch, tmp_path, capsys
):
    def build(given, key):
        return Perceptron((given.task.n_in + 1, 3, 10), DFA(), given.tx)

    monkeypatch.setitem(RECIPES, "dfa", RECIPES["dfa"]._replace(build=build))
    said = refused(capsys, [*NET, "--learner", "dfa", "--out", str(tmp_path / "run")])
    assert said.startswith("error: x must be [batch, ...] of 65 numbers a sample; got [20, 64]")
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_another_learner_does_not_go_on_with_what_is_there(whole, capsys):
    out, _ = whole
    files = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    said = refused(capsys, [*NET, "--learner", "dfa", "--resume", "--out", str(out)])
    assert "was made with --learner backprop; got --learner dfa" in said
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == files
