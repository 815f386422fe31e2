"""The main experiment as its user meets it: the command line, what it writes, how it goes on."""

import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import _config, _folder, _run, _training
from experiments import wta_broadcast as wta
from neurojax import checkpoint, data
from neurojax.learning import wta_broadcast as wb
from neurojax.learning._progress import Progress

SMALL = (
    "--epochs 8 --hidden 24 20 --radius 4 --train-size 320 --n-steps 8 --start 2"
    " --readout-density 0.2 --readout-population 3"
).split()


@pytest.fixture(autouse=True)
def _no_default_folder(monkeypatch):
    monkeypatch.delenv("NEUROJAX_DATA", raising=False)


class Run(NamedTuple):
    """What a run wrote, and what it held at its end."""

    out: Path
    metrics: dict[str, Any]
    config: wta.Config
    steps: _training.Trainer
    state: wb.TrainState
    sets: data.Dataset


def trained(out, argv, *, draw=False) -> Run:
    """Run the experiment to its end through its command line; without `draw`, figures are empty."""
    held: list[Any] = []
    measured = wta.measured

    def spy(data, steps, state, sets, key, history):
        held.extend((steps, state, sets))
        return measured(data, steps, state, sets, key, history)

    def filled(config, n_train):
        held.append(_config.resolved(config, n_train))
        return held[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wta, "measured", spy)
        patch.setattr(wta, "resolved", filled)
        for name in () if draw else ("learning_curve", "raster", "weights"):
            patch.setattr(wta.plotting, name, lambda *args, **options: Figure((1, 1)))
        _run.main(wta.Config, wta.run, [*argv, "--out", str(out)])
    return Run(out, json.loads((out / "metrics.json").read_text()), *held)


def refused(capsys, argv, epochs=0) -> str:
    """The only line on stderr of a run that ends with an error, after some epochs."""
    with pytest.raises(SystemExit) as end:
        _run.main(wta.Config, wta.run, list(argv))
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out.count("\n") == epochs
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ")
    return said.err


def outcome(metrics):
    """Metrics less what may differ between two equal runs: time, place and commit."""
    kept = {k: v for k, v in metrics.items() if not k.startswith("seconds")}
    kept.pop("git_revision")
    places = ("out", "resume", "overwrite", "data_dir")
    return kept | {"config": {k: v for k, v in kept["config"].items() if k not in places}}


def assert_same_bits(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(bits(x), bits(y)), a, b)


def bits(x):
    if eqx.is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8)


def last_checkpoint(run: Run):
    return checkpoint.restore(run.out / "checkpoints", run.state)[:2]


# --- one run, and what it leaves ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    """A run without interruption, in which the training step may be traced once and no more,
    and in which nobody may differentiate anything."""

    def refuse(*args, **kwargs):
        raise AssertionError("a derivative was asked for")

    chex.clear_trace_counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wb, "update", chex.assert_max_traces(wb.update, n=1))
        for name in ("grad", "value_and_grad", "vjp", "jvp", "linearize", "jacfwd", "jacrev"):
            patch.setattr(jax, name, refuse)
        return trained(tmp_path_factory.mktemp("whole") / "run", SMALL, draw=True)


@pytest.mark.slow
def test_metrics_hold_all_that_is_asked_for(whole):
    m = whole.metrics
    assert len(m["val_accuracy"]) == len(m["train_accuracy"]) == 8
    assert m["n_train"] == 320
    assert m["n_test"] == len(whole.sets.test.labels)
    for name in ("spikes_per_neuron_step", "active_fraction", "layer_readout_accuracy"):
        assert len(m[name]) == 2
        assert all(0 <= x <= 1 for x in m[name])
    right = m["test_accuracy"] * m["n_test"]
    assert right == pytest.approx(round(right))
    assert m["seconds"] == pytest.approx(sum(m["seconds_per_epoch"]))
    assert m["epochs_planned"] == [8] * 8
    assert m["seed"] == m["config"]["seed"] == 0
    assert m["config"]["hidden"] == [24, 20]
    assert None not in [m["config"][name] for name in _config.PRESETS["static"]]
    assert m["versions"]["jax"] == jax.__version__
    assert m["git_revision"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", m["git_revision"])


@pytest.mark.slow
def test_figures_are_pictures(whole):
    for name in ("learning_curve", "raster", "weights"):
        pixels = matplotlib.image.imread(whole.out / f"{name}.png")
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.02


@pytest.fixture(scope="module")
def rasters(whole) -> dict[str, np.ndarray]:
    """Spikes [picture, T, n] of each hidden layer over the test set."""
    weights, tone = whole.state.average
    images = jnp.asarray(whole.sets.test.images).reshape(-1, 64)
    present = eqx.filter_jit(jax.vmap(partial(wb.present, whole.steps.system, weights, tone)))
    record = present(images)
    return {n: np.asarray(record[n].z) for n in ("h1", "h2")}


@pytest.mark.slow
def test_activity_is_that_of_the_rasters(whole, rasters):
    rates = [rasters[n].mean() for n in ("h1", "h2")]
    np.testing.assert_allclose(whole.metrics["spikes_per_neuron_step"], rates, rtol=1e-6)
    assert min(rates) > 0.01
    active = [rasters[n].any((0, 1)).mean() for n in ("h1", "h2")]
    assert whole.metrics["active_fraction"] == active


@pytest.mark.slow
def test_synaptic_events_are_those_counted_spike_by_spike(whole, rasters):
    events, reached = 0, {}
    for name, p in whole.steps.system.network.projections.items():
        if p.pre == "input":
            continue
        synapses = getattr(p.connectivity, "count", None)  # parallel synapses, where merged
        if synapses is None:
            synapses = p.connectivity.matrix(jnp.ones(p.connectivity.shape))
        reached[name] = int(synapses.sum())
        _, _, senders = np.nonzero(rasters[p.pre])
        events += int(np.asarray(synapses).sum(0)[senders].sum())
    # By hand: 8 neighbours, of which 10% = 1 far away; 30 readout neurons that hear 20%.
    assert reached == {
        "h1->h1": 24 * 7, "h1->h1 far": 24, "h1->readout": 30 * 5, "h1->h2": 24 * 20,
        "h2->h2": 20 * 7, "h2->h2 far": 20, "h2->readout": 30 * 4,
    }  # fmt: skip
    mean = events / whole.metrics["n_test"]
    assert whole.metrics["synaptic_events_per_inference"] == pytest.approx(mean, rel=1e-6)


@pytest.mark.slow
def test_accuracies_are_those_of_a_readout_written_out(whole, rasters):
    c, (weights, _) = whole.config, whole.state.average
    kappa = np.exp(-1 / c.tau_out)
    currents = {
        n: z
        @ np.asarray(weights[f"{n}->readout"].connectivity.matrix(weights[f"{n}->readout"].w)).T
        for n, z in rasters.items()
    }

    def accuracy(*layers):
        y, total = 0.0, 0.0
        for t in range(c.n_steps):
            y = kappa * y + (1 - kappa) * sum(currents[n][:, t] for n in layers)
            total = total + y * (t >= c.start)  # the scale of the scores decides nothing
        return np.mean(total.argmax(1) == whole.sets.test.labels)

    one_picture = 1 / whole.metrics["n_test"] + 1e-9  # a near tie that rounding decides
    assert whole.metrics["test_accuracy"] == pytest.approx(accuracy("h1", "h2"), abs=one_picture)
    alone = [accuracy("h1"), accuracy("h2")]
    assert whole.metrics["layer_readout_accuracy"] == pytest.approx(alone, abs=one_picture)


@pytest.mark.slow
def test_validation_is_judged_by_its_own_pictures_and_the_test_by_its(whole):
    sets = whole.sets
    parts = [sets.train, sets.val, sets.test]
    assert len({x.tobytes() for part in parts for x in part.images}) >= 1790  # some digits agree
    found = [
        _training.evaluate(whole.steps, whole.state.average, part, jax.random.key(0)).accuracy
        for part in (sets.val, sets.test)
    ]
    assert [whole.metrics["val_accuracy"][-1], whole.metrics["test_accuracy"]] == found
    assert found[0] != found[1]  # of 287 and of 360


@pytest.mark.slow
def test_the_last_checkpoint_is_the_state_at_the_end(whole):
    epoch, state = last_checkpoint(whole)
    assert epoch == 8
    assert_same_bits(state, whole.state)


# --- to go on ---


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 5])
def test_an_interrupted_run_goes_on_to_the_same_end(whole, tmp_path, monkeypatch, epochs):
    shown = Progress.show

    def interrupt(bar, *sums):
        shown(bar, *sums)
        if bar.epoch == epochs and bar._batches > 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "show", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, SMALL)
    assert (checkpoint.latest(tmp_path / "checkpoints") or 0) == epochs
    assert_same_end(trained(tmp_path, [*SMALL, "--resume"]), whole)


@pytest.mark.slow
def test_a_training_that_is_lost_ends_in_one_line_and_keeps_the_epoch_before(
    whole, tmp_path, monkeypatch, capsys
):
    def learn(state, **how):
        before = int(state.step)
        state, seen = whole.steps.learn(state, **how)
        if before < 25 <= int(state.step):  # ten batches an epoch
            name = "h1->readout"
            state = eqx.tree_at(lambda s: s.weights[name].w, state, replace_fn=lambda w: w * np.nan)
        return state, seen

    lossy = whole.steps._replace(learn=learn)
    monkeypatch.setattr(_training, "trainer", lambda *args: lossy)
    said = refused(capsys, [*SMALL, "--out", str(tmp_path)], epochs=2)
    assert said == (
        "error: weights h1->readout must stay finite; got NaN or infinity in batch 5 of epoch 3;"
        " pass a smaller --lr-readout than 0.005\n"
    )
    assert checkpoint.latest(tmp_path / "checkpoints") == 2
    assert not (tmp_path / "metrics.json").exists()
    monkeypatch.undo()
    assert_same_end(trained(tmp_path, [*SMALL, "--resume"]), whole)


@pytest.mark.slow
def test_a_run_goes_on_to_more_epochs_on_the_schedules_of_the_longer(
    whole, tmp_path, capsys, monkeypatch
):
    shutil.copytree(whole.out, tmp_path / "run")
    planned = []
    for name, at in (("optimiser", 1), ("learner", 2)):
        real = getattr(_training, name)
        spy = lambda *a, real=real, at=at: planned.append(a[at]) or real(*a)  # noqa: E731
        monkeypatch.setattr(_training, name, spy)
    longer = trained(tmp_path / "run", ["--epochs", "9", *SMALL[2:], "--resume"])
    assert planned == [90, 90]  # batches over which the schedules fall, ten an epoch
    m, before = longer.metrics, whole.metrics
    assert m["epochs_planned"] == [8] * 8 + [9]
    assert m["val_accuracy"][:8] == before["val_accuracy"]
    assert m["config"]["epochs"] == len(m["train_accuracy"]) == 9
    assert json.loads((longer.out / "run.json").read_text())["epochs"] == 9
    for name in whole.steps.system.network.plastic():
        assert (longer.state.weights[name].w != whole.state.weights[name].w).any()
    assert int(longer.state.step) == 90
    capsys.readouterr()
    shrunk = refused(capsys, [*SMALL, "--out", str(longer.out), "--resume"])
    assert "was made with --epochs 9, which may only grow; got --epochs 8" in shrunk


def assert_same_end(a: Run, b: Run):
    assert outcome(a.metrics) == outcome(b.metrics)
    assert_same_bits(last_checkpoint(a), last_checkpoint(b))


def stopped_by(number, out, *argv, after):
    """Run in a process of its own, and send it a signal at some moment after an epoch."""
    words = [sys.executable, "-u", "-m", "experiments.wta_broadcast", *SMALL, "--out", str(out)]
    pipe = subprocess.PIPE
    with subprocess.Popen([*words, *argv], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"epoch {after:>3}/"):
                break
        try:
            process.wait(np.random.default_rng(after).uniform(0, 0.1))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals",
    [
        [(3, signal.SIGKILL)],
        pytest.param(
            [(1, signal.SIGKILL), (3, signal.SIGINT), (4, signal.SIGTERM), (6, signal.SIGHUP)],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_no_signal_changes_the_end(whole, tmp_path, signals):
    argv = []
    for epoch, number in signals:
        code, said = stopped_by(number, tmp_path, *argv, after=epoch)
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert (code, said.count("\n")) == (128 + number, 1)
            assert said.startswith("interrupted; the same command with --resume goes on")
        assert not (tmp_path / "metrics.json").exists()
        argv = ["--resume"]
    assert_same_end(trained(tmp_path, [*SMALL, "--resume"]), whole)


# --- what is learned ---


def decided(run: Run):
    """The class chosen for each picture of the test."""
    test, key = run.sets.test, jax.random.key(0)
    outcome = run.steps.predict(run.steps.system, *run.state.average, jnp.asarray(test.images), key)
    return np.asarray(outcome.scores.argmax(1)), test.labels


def best_of_chance(run: Run) -> float:
    """Accuracy that renaming the classes at random exceeds once in thirty thousand times.

    Pictures of one class are often decided alike, so that they are no independent guesses and
    the binomial bound would be too narrow.
    """
    chosen, labels = decided(run)
    rng = np.random.default_rng(0)
    renamed = [np.mean(rng.permutation(10)[chosen] == labels) for _ in range(2000)]
    return float(np.mean(renamed) + 4 * np.std(renamed))


@pytest.mark.slow
def test_labels_that_mean_nothing_teach_nothing(whole, tmp_path):
    shuffled = trained(tmp_path, [*SMALL, "--shuffle-labels"])
    assert np.mean(np.equal(*decided(shuffled))) == pytest.approx(shuffled.metrics["test_accuracy"])
    assert shuffled.metrics["test_accuracy"] < best_of_chance(shuffled)
    assert whole.metrics["test_accuracy"] > best_of_chance(whole) + 0.1
    assert whole.metrics["val_accuracy"][-1] > whole.metrics["val_accuracy"][0] + 0.1


# --- other data, other switches ---


def idx(array) -> bytes:
    """The IDX file of an array of bytes."""
    array = np.asarray(array, np.uint8)
    return np.array([0x0800 + array.ndim, *array.shape], ">i4").tobytes() + array.tobytes()


def quadruple(n_train=90, n_test=18, n_classes=3, shape=(5, 7)) -> dict[str, bytes]:
    """Four IDX files by name: noise, and a bright line whose place tells the class."""
    rng, files = np.random.default_rng(0), {}
    for stem, n in (("train", n_train), ("t10k", n_test)):
        labels = np.arange(n) % n_classes
        images = rng.integers(0, 60, (n, *shape))
        images[np.arange(n), 1 + labels] = 250
        images[np.arange(n), :, 2 * labels] = 250
        files[f"{stem}-images-idx3-ubyte"] = idx(images)
        files[f"{stem}-labels-idx1-ubyte"] = idx(labels)
    return files


def folder_of(tmp_path, files) -> list[str]:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return ["--data-dir", str(tmp_path)]


@pytest.fixture
def oblong(tmp_path) -> list[str]:
    """Options to train on pictures of 5 x 7 in three classes, half of the files gzipped."""
    files = quadruple()
    files["train-images-idx3-ubyte.gz"] = gzip.compress(files.pop("train-images-idx3-ubyte"))
    options = "--dataset idx --epochs 2 --batch-size 16 --hidden 20 --start 2"
    return [*options.split(), *folder_of(tmp_path, files)]


def assert_sane(run: Run, n_layers):
    m, n = run.metrics, run.metrics["n_test"]
    assert len(m["val_accuracy"]) == run.config.epochs
    assert n == 18
    for name in ("spikes_per_neuron_step", "active_fraction", "layer_readout_accuracy"):
        assert len(m[name]) == n_layers
        assert all(0 <= x <= 1 for x in m[name])
    for accuracy in (m["test_accuracy"], *m["layer_readout_accuracy"]):
        assert n * accuracy == pytest.approx(round(n * accuracy))
    assert min(m["spikes_per_neuron_step"]) > 0
    assert m["synaptic_events_per_inference"] > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.state) if x.dtype == np.float32)


SWITCHES = {
    "rows": "--presentation rows --start -2 --neuron alif --teacher hard --recurrence dense"
    " --modulators 2 --optimiser sgd --report-hardware",
    "poisson": "--encoding poisson --max-rate 900 --readout spiking --hidden 33 20 --winners 5"
    " --window boxcar --trace-decay 0.5 --recurrence none --n-steps 8",
    "latency": "--encoding latency --recurrence none --feedback broadcast --redraw-feedback"
    " --t-ref 2 --gain-in 20 --reset subtract --window spike --bandwidth 1 --n-steps 8",
    "fixed": "--freeze-hidden --augment none --input-dropout 0.1 --tau-spread 1"
    " --recurrence local --radius 4 --optimiser momentum --lr-readout 0.05"
    " --weight-decay 0.01 --average 0 --n-steps 8",
    "devices": "--synapse exponential --update unidirectional --n-states 16 --nonlinearity 3"
    " --sigma-d2d 0.2 --sigma-c2c 0.01 --recurrence none --n-steps 8 --rate-penalty 1",
}


# Each of their switches alone stands in test_options and test_training.
_LONG = {"poisson", "latency"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in _LONG else ()) for n in SWITCHES]
)
def test_switches_work_together(name, oblong, tmp_path):
    run = trained(tmp_path / "run", [*oblong, *SWITCHES[name].split()])
    assert_sane(run, len(run.config.hidden))
    system, rates = run.steps.system, run.metrics["spikes_per_neuron_step"]
    n_pre = system.network.projections["input->h1"].connectivity.n_pre
    if name == "rows":
        assert (n_pre, system.n_steps, system.start) == (7, 5, 3)
        assert run.metrics["hardware"]["energy"]["Loihi"]["learning"]["total"] > 0
    if name == "poisson":
        assert system.network.layers["readout"].n == 3 * 10
        assert rates[0] <= 5 / 33
        assert rates[1] <= 5 / 20
    if name == "latency":
        assert rates[0] <= 3 / 8  # a spike, two steps of silence
        assert not system.network.layers["h1"].neuron.reset == "hard"
    if name == "fixed":
        assert system.network.plastic() == ("h1->readout",)
        assert n_pre == 5 * 7
    if name == "devices":
        counted = run.metrics["devices"]
        assert set(counted) == set(run.state.weights)
        for projection, spent in counted.items():
            held = run.state.weights[projection]
            written = int(held.n_pulses.sum()) - spent["n_pulses"]
            assert (written == 0) == projection.endswith("readout")  # which starts from zero
            assert spent["n_pulses"] > 0
            assert spent["most_pulses"] == int(held.n_pulses.max())
            assert spent["n_refresh"] == int(held.pair.spent.n_refresh.sum())
            assert spent["energy"] > 0
            assert spent["time"] > 0


@pytest.mark.slow
def test_the_seed_decides_everything(oblong, tmp_path):
    argv = [*oblong, *SWITCHES["fixed"].split(), "--epochs", "20"]
    seeds = {"a": "0", "b": "0", "c": "1"}
    a, b, c = (trained(tmp_path / name, [*argv, "--seed", seed]) for name, seed in seeds.items())
    assert_same_end(a, b)
    assert a.metrics["spikes_per_neuron_step"] != c.metrics["spikes_per_neuron_step"]
    # 18 pictures in three classes: chance is 6 right, and 14 are four standard errors more.
    assert min(run.metrics["test_accuracy"] for run in (a, c)) > 14 / 18


@pytest.mark.parametrize("presentation", ["static", "rows"])
def test_presets_leave_nothing_open(presentation):
    c = _config.resolved(wta.Config(dataset="mnist", presentation=presentation))
    open_ended = "data_dir bin_ms train_size winners t_ref bandwidth trace_decay".split()
    assert [k for k, v in _folder.jsonable(c).items() if v is None and k not in open_ended] == []
    assert _config.resolved(c) == c
    assert _config.resolved(wta.Config(lr=0.5)).lr == 0.5


# --- data that nobody tuned on ---

UNTUNED = ("idx", "fashion_mnist", "cifar10", "mnist_corrupted")


@pytest.mark.parametrize("name", UNTUNED)
@pytest.mark.parametrize("presentation", ["static", "rows"])
def test_data_that_nobody_tuned_on_are_never_augmented(name, presentation):
    c = _config.resolved(wta.Config(dataset=name, presentation=presentation), 1000)
    assert (c.augment, c.input_dropout) == ("none", 0.0)
    assert _config.resolved(wta.Config(dataset=name, augment="weak"), 1000).augment == "weak"


def test_named_sets_keep_what_was_tuned_for_them():
    mnist, digits = (_config.resolved(wta.Config(dataset=n)) for n in ("mnist", "digits"))
    kept = ("epochs", "batch_size", "inputs", "augment", "hidden", "recurrence", "average")
    of = lambda c: tuple(getattr(c, name) for name in kept)  # noqa: E731
    assert of(mnist) == (10, 64, "raw", "affine", (512, 512), "local", 0.998)
    assert of(digits) == (40, 32, "raw", "weak", (256, 256), "local", 0.99)
    assert _config.resolved(wta.Config(dataset="digits"), 7) == digits


@pytest.mark.parametrize(
    ("n_train", "batch_size", "epochs"),
    [(1, 1, 1000), (5, 5, 1000), (90, 8, 91), (342, 8, 24), (1150, 32, 29), (3000, 64, 22),
     (55_000, 64, 10), (10**7, 64, 10)],
)  # fmt: skip
def test_batch_and_epochs_follow_the_number_of_pictures(n_train, batch_size, epochs):
    c = _config.resolved(wta.Config(dataset="idx"), n_train)
    assert (c.batch_size, c.epochs) == (batch_size, epochs)
    assert c.epochs * (n_train // c.batch_size) >= 1000
    given = _config.resolved(wta.Config(dataset="idx", batch_size=2), n_train)
    assert given.batch_size == 2
    assert given.epochs == max(10, -(-1000 // max(1, n_train // 2)))
    assert _config.resolved(wta.Config(dataset="idx", epochs=3), n_train).epochs == 3


def test_other_data_need_their_number():
    with pytest.raises(ValueError, match="n_train must be the number of training pictures; got N"):
        _config.resolved(wta.Config(dataset="idx"))


@pytest.mark.parametrize("options", [{"presentation": "rows"}, {"encoding": "poisson"}])
def test_only_currents_are_centred(options):
    assert _config.resolved(wta.Config(dataset="idx", **options), 1000).inputs == "raw"
    assert _config.resolved(wta.Config(dataset="idx"), 1000).inputs == "centred"
    with pytest.raises(ValueError, match="--inputs must be raw unless .*; got centred"):
        wta.Config(dataset="idx", inputs="centred", **options)
    wta.Config(input_dropout=0.5)
    wta.Config(input_dropout=0.0, **options)
    with pytest.raises(ValueError, match="--input-dropout must be 0 unless .*; got 0.5"):
        wta.Config(input_dropout=0.5, **options)  # what is left would be above 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iris", "breast_cancer", "digits"])
def test_plain_use_beats_logistic_regression_on_the_same_pixels(name, tmp_path):
    """scikit-learn's with C = 1, taught by the same pictures with pixels in [0, 1], as loaded.

    On standardised pixels it does better on small tables: docs/data.md.
    """
    from sklearn import datasets
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    x, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    parts = train_test_split(x, labels, test_size=0.25, random_state=0, stratify=labels)
    low, high = np.min(parts[0], 0), np.max(parts[0], 0)
    files = {}
    for stem, at in (("train", 0), ("t10k", 1)):
        scaled = (parts[at] - low) / np.where(high > low, high - low, 1)
        files[f"{stem}-images-idx3-ubyte"] = idx(np.round(255 * np.clip(scaled, 0, 1))[..., None])
        files[f"{stem}-labels-idx1-ubyte"] = idx(parts[2 + at])
    where = folder_of(tmp_path, files)
    run = trained(tmp_path / "run", ["--dataset", "idx", *where])
    sets = data.load("idx", tmp_path)
    flat = lambda split: split.images.reshape(len(split.labels), -1)  # noqa: E731
    linear = LogisticRegression(max_iter=2000).fit(flat(sets.train), sets.train.labels)
    of_linear = linear.score(flat(sets.test), sets.test.labels)
    assert run.metrics["test_accuracy"] > of_linear


# --- bad input ---


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--readout-density 0", "--readout-density must be in (0, 1]; got 0.0"),
        ("--readout-density 1.5", "--readout-density must be in (0, 1]; got 1.5"),
        ("--readout-density nan", "--readout-density must be in (0, 1]; got nan"),
        ("--epochs 0", "--epochs must be a whole number >= 1; got 0"),
        ("--batch-size -5", "--batch-size must be a whole number >= 1; got -5"),
        ("--train-size 0", "--train-size must be a whole number >= 1; got 0"),
        ("--seed -1", "--seed must be a whole number >= 0; got -1"),
        ("--lr nan", "--lr must be in [0, inf); got nan"),
        ("--tau-mem inf", "--tau-mem must be in (0, inf); got inf"),
        ("--target-rate 2", "--target-rate must be in [0, 1]; got 2.0"),
        ("--tau-spread 99", "--tau-spread must be in [0, 10]; got 99.0"),
        ("--max-rate 2000", "--max-rate must be in (0, 1000]; got 2000.0"),
        ("--hidden 8 0", "--hidden must name one or more layers of >= 1 neurons; got (8, 0)"),
        ("--hidden", "--hidden must name one or more layers of >= 1 neurons; got ()"),
        ("--sigma-d2d 0.1", "--sigma-d2d 0.1 needs a --synapse other than ideal"),
        ("--n-states 1", "--n-states must be a whole number >= 2; got 1"),
        ("--dynamic-range 1", "--dynamic-range must be in (1, inf); got 1.0"),
        ("--sigma-d2d -1", "--sigma-d2d must be in [0, 1]; got -1.0"),
        ("--w-max 0", "--w-max must be in (0, inf); got 0.0"),
        (
            "--synapse linear --average 0.9",
            "--average must be 0, as devices hold no average; got 0.9",
        ),
        ("--start 8", "--start must be in [-8, 8); got 8"),
        ("--start -9", "--start must be in [-8, 8); got -9"),
        ("--batch-size 321", "--batch-size must be at most 320 pictures; got 321"),
        (
            "--radius 10",
            "recurrence of layer 'h2': --radius must be in [1, 9] for 20 neurons; got 10; pass"
            " another --radius or --p-rewire, or --recurrence dense or --recurrence none",
        ),
        (
            "--radius 8 --p-rewire 0.9",
            "recurrence of layer 'h1': --p-rewire must be at most 0.438, as 24 neurons of radius 8",
        ),
        ("--winners 21", "--winners must be in [1, 20], the layer; got 21"),
        ("--bandwidth 10", "--bandwidth must be in [1, 9] for 10 classes; got 10"),
        ("--dataset digit", "--dataset must be digits, mnist, idx, mnist1d, moving-digits, nmnist"),
        ("--dataset idx", "--data-dir must name the folder of the IDX files"),
        ("--dataset idx --data-dir /no/where", "--data-dir must be an existing folder; got '/no/w"),
    ],
)
def test_options_out_of_range_are_refused(argv, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert refused(capsys, [*SMALL, "--out", str(out), *argv.split()]).startswith(
        f"error: {message}"
    )
    assert not out.exists() or not any(out.iterdir())


def changed(name, change):
    """Four good IDX files, of which one is changed."""
    files = quadruple()
    return files | {name: change(files[name])}


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def truncated_gzip(tmp_path):
    files = quadruple()
    files[f"{IMAGES}.gz"] = gzip.compress(files.pop(IMAGES))[:-100]
    return files


@pytest.mark.parametrize(
    ("dataset", "files", "message"),
    [
        ("idx", truncated_gzip, f"{IMAGES}.gz: must be a whole gzip file; got "),
        ("idx", lambda _: changed(IMAGES, lambda b: b[:-1]), "promises 3166 bytes"),
        ("idx", lambda _: changed(IMAGES, lambda b: b"PK" + b[2:]), "magic number must be 0x"),
        ("idx", lambda _: changed(IMAGES, lambda b: b""), "magic number must be 0x"),
        ("idx", lambda _: quadruple() | {LABELS: idx(np.zeros(89))}, "90 images and 89 labels"),
        ("idx", lambda _: quadruple() | {"t10k-labels-idx1-ubyte": idx(np.full(18, 3))},
         "idx test labels must be in [0, 3); got 3 (18 of 18)"),
        ("mnist", lambda _: quadruple() | {LABELS: idx(np.full(90, 12))},
         "mnist train labels must be in [0, 10); got 12 (90 of 90)"),
        ("mnist", lambda _: {IMAGES: quadruple()[IMAGES]}, "--data-dir must hold train-labels-id"),
        ("idx", lambda _: quadruple() | {IMAGES: idx(np.zeros((0, 5, 7)))},
         "idx train images must have shape [N, H, W]"),
    ],
)  # fmt: skip
def test_corrupt_and_unfit_files_are_refused(dataset, files, message, tmp_path, capsys):
    argv = folder_of(tmp_path, files(tmp_path))
    out = ["--out", str(tmp_path / "run")]
    assert message in refused(capsys, [*SMALL, "--dataset", dataset, *argv, *out])


def test_pixels_that_are_no_numbers_are_refused(tmp_path, capsys, monkeypatch):
    images = np.full((50, 5, 7), 0.5)
    images[3, 2, 1] = np.nan
    parts = {"train": (images, np.arange(50) % 3)}
    monkeypatch.setattr("neurojax.data.sets._read", lambda name, folder: (parts, 3))
    said = refused(capsys, [*SMALL, "--dataset", "spots", "--out", str(tmp_path)])
    assert "spots train images must be finite and in [0, 1]; got nan (1 of 1750)" in said


def test_an_out_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    said = refused(capsys, [*SMALL, "--out", str(tmp_path / "file" / "below")])
    assert "--out must be a folder that can be written; got " in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "holds the results of another run (metrics.json): pass --resume to go on with it"),
        ("--resume --lr 0.25", "was made with --lr "),
        (
            "--resume --no-learn-recurrence",
            "made with --learn-recurrence; got --no-learn-recurrence",
        ),
        ("--overwrite --radius 99", "--radius must be in [1, 11] for 24"),
        ("--overwrite --dataset digit", "--dataset must be digits, mnist"),
    ],
)
def test_results_stay_as_they_are_when_a_run_is_refused(argv, message, whole, capsys):
    files = {p: p.read_bytes() for p in whole.out.rglob("*") if p.is_file()}
    assert message in refused(capsys, [*SMALL, "--out", str(whole.out), *argv.split()])
    assert {p: p.read_bytes() for p in whole.out.rglob("*") if p.is_file()} == files


@pytest.mark.slow
def test_in_a_process_of_its_own_an_error_is_one_line_too(tmp_path):
    words = "-m experiments.wta_broadcast --dataset idx --data-dir missing --out".split()
    ended = subprocess.run(
        [sys.executable, *words, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: --data-dir must be an existing folder; got 'missing'\n"
    assert ended.stdout == ""
