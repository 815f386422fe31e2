"""The study of devices: its design, its training step, and what it writes."""

import json
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from experiments import _device_figures, _perceptron, _run
from experiments import electronic_synapse as study
from experiments._devices import Spent, Update
from experiments._options import part
from experiments._perceptron import Perceptron, Program, Setting
from neurojax import data

IDEAL = Program("ideal", "none", 12)
SETTING = Setting(16.0, 10.0, 0.0, 0.3, 0.75, 0.25, 0)
SMALL = (
    "--dataset digits --train-size 256 --epochs 5 --batch-size 16 --hidden 8 --responses linear"
    " --policies bidirectional unidirectional --n-states 16 64 --dynamic-range 10 --sigma-d2d 0 0.3"
    " --lr 0.2 0.8 --upper 0.75 --lower 0.25 --seeds 2 --width 1"
).split()


@pytest.fixture(scope="module")
def pictures():
    return _perceptron.lesson(data.load("digits"), 128)


def test_a_step_on_numbers_is_gradient_descent(pictures):
    x, target = (part[:64] for part in pictures.train)
    net = Perceptron.fresh(IDEAL, SETTING, 64, 10, jax.random.key(0))

    def loss(w):
        y = jax.nn.relu(x @ w[0].T) @ w[1].T
        return -jnp.take_along_axis(jax.nn.log_softmax(y), target[:, None], 1).mean()

    before = (net.first.w, net.second.w)
    after = net.trained(x, target, jnp.array(0.3), jax.random.key(1))
    for w, g, new in zip(before, jax.grad(loss)(before), after, strict=True):
        np.testing.assert_allclose(new.w, w - 0.3 * g, atol=1e-6)
        assert np.abs(g).max() > 1e-3


def test_each_split_is_judged_by_its_own_labels(pictures):
    right = pictures.train
    wrong = (right[0], (right[1] + 1) % 10)
    train = jax.jit(partial(_perceptron.trained, IDEAL, 10, 12, 16))
    splits = [(right, wrong), (wrong, right)]
    for val, test in splits:
        outcome = train(_perceptron.Lesson(right, val, test), SETTING._replace(lr=0.5))
        good, bad = (outcome.val_accuracy, outcome.test_accuracy)[:: 1 if val is right else -1]
        assert good > 0.6
        assert bad < 0.2  # of the right ones at most what is left
    lost = train(_perceptron.Lesson(right, right, right), SETTING._replace(lr=1e38))
    assert np.isnan([lost.val_accuracy, lost.test_accuracy]).all()


def test_a_lesson_keeps_the_splits_apart():
    split = lambda n, at: data.Split(np.full((n, 2, 3), at, np.float32), np.full(n, 1))  # noqa: E731
    sets = data.Dataset("own", split(9, 0.25), split(4, 0.5), split(5, 0.75), 2)
    lesson = _perceptron.lesson(sets, 7)
    for some, n, at in zip(lesson, (7, 4, 5), (0.25, 0.5, 0.75), strict=True):
        np.testing.assert_array_equal(some[0], np.full((n, 6), at))
        assert some[1].shape == (n,)


class Diary(NamedTuple):
    """In place of a perceptron: what each batch was given."""

    seen: Any  # the pictures' numbers, -1 before
    keys: Any

    def trained(self, x, target, lr, key):
        at = (self.seen[:, 0] >= 0).sum()
        keys = self.keys.at[at].set(jax.random.key_data(key))
        return Diary(self.seen.at[at].set(x[:, 0]), keys)

    def __call__(self, x):
        return self, jnp.zeros((len(x), 2))


def test_every_epoch_of_a_perceptron_has_an_order_of_its_own(monkeypatch):
    numbers = jnp.arange(10)
    pictures = (numbers[:, None].astype(float), numbers)
    start = Diary(jnp.full((6, 4), -1.0), jnp.zeros((6, 2), jnp.uint32))
    ended = []

    class Spy:
        @staticmethod
        def fresh(program, s, n_in, n_out, key):
            return start

    def spent(part):
        ended.append(part)
        return Spent(0.0, 0.0, 0.0, 0.0)

    monkeypatch.setattr(_perceptron, "Perceptron", Spy)
    monkeypatch.setattr(_perceptron, "_devices", SimpleNamespace(spent=spent))
    lesson = _perceptron.Lesson(pictures, pictures, pictures)
    for seed in (0, 1):
        _perceptron.trained(IDEAL, 2, 3, 4, lesson, SETTING._replace(seed=seed))
    first, keys, _, _, other, other_keys, *_ = ended
    epochs = np.asarray(first).reshape(3, 8)
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({epoch.tobytes() for epoch in epochs}) == 3
    assert (first != other).any()
    assert len({key.tobytes() for key in np.concatenate([keys, other_keys])}) == 12


@pytest.mark.slow
def test_trainings_side_by_side_are_each_as_alone(pictures):
    program = Program("exponential", "unidirectional", 8)
    settings = [
        SETTING._replace(n_states=n, sigma_d2d=sigma, seed=seed)
        for n, sigma, seed in ((16.0, 0.0, 0), (64.0, 0.3, 0), (16.0, 0.0, 1))
    ]
    settings.append(SETTING._replace(upper=0.05, lower=0.01, lr=0.8))
    train = partial(_perceptron.side_by_side, program, 10, 3, 16, pictures, width=1)
    (together,) = train(settings)  # eight devices, four trainings
    for s, outcome in zip(settings, together, strict=True):
        assert [[outcome]] == [*train([s])]
        assert outcome.n_pulses > 0
        assert outcome.energy > 0
    assert len({outcome.n_pulses for outcome in together}) == 4
    assert together[-1].n_refresh > 0


def test_the_design_is_what_is_said_of_it():
    c = study.Config()
    best = {pair: SETTING for pair in [("ideal", "none"), *product(c.responses, c.policies)]}
    jobs = study.grid(part(c, study.Devices), c.hidden, range(3), best)
    made = [
        (*job.program, *s._replace(lr=0, upper=0, lower=0)) for job in jobs for s in job.settings
    ]
    assert len(set(made)) == len(made) >= 300
    for response, policy, seed in product(c.responses, c.policies, range(3)):
        at = {
            (n, wide, sigma)
            for r, p, hidden, n, wide, sigma, *_, s in made
            if (r, p, hidden, s) == (response, policy, 100, seed)
        }
        levels = set(product(c.n_states, [10.0], c.sigma_d2d))
        ranges = set(product([64], c.dynamic_range, c.sigma_d2d))
        assert at == levels | ranges
    assert {hidden for _, _, hidden, *_ in made} == {100, 200}


def test_every_policy_is_searched_at_the_same_rates_and_its_best_mean_is_chosen():
    c = study.Config(responses=("linear",), lr=(0.1, 0.4))
    jobs = study.searched(part(c, study.Devices), c.lr, 100)
    assert {job.program.hidden for job in jobs} == {100}
    jobs = {job.program.policy: job.settings for job in jobs}
    for policy, settings in jobs.items():
        pairs = (
            {(0.75, 0.25), (0.9, 0.5), (0.5, 0.1)} if policy == "unidirectional" else {(0.75, 0.25)}
        )
        tried = {(s.lr, s.upper, s.lower, s.sigma_d2d) for s in settings}
        variation = [0.0] if policy == "none" else [0.0, 0.3]
        assert tried == {(lr, *pair, x) for lr, pair, x in product(c.lr, pairs, variation)}
        assert {s.seed for s in settings}.isdisjoint(range(100))


@pytest.mark.parametrize("better", [0.1, 0.4])
def test_what_the_test_pictures_say_chooses_nothing(better):
    rows = []
    for lr in (0.1, 0.4):  # the better one has the better mean, not the best single training
        for val, test in ((0.8, 0.1), (0.7, 0.2)) if lr == better else ((0.9, 0.9), (0.5, 0.9)):
            row = {"response": "linear", "policy": "one-side"} | SETTING._replace(lr=lr)._asdict()
            outcome = _perceptron.Outcome(val, test, 0.0, 0.0, 0.0, 0.0)
            rows.append(row | outcome._asdict())
    assert study.chosen(rows)["linear", "one-side"].lr == better


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "run"
    _run.main(study.Config, study.run, [*SMALL, "--out", str(out)])
    return out


@pytest.mark.slow
def test_the_results_hold_what_was_trained(whole):
    m = json.loads((whole / "metrics.json").read_text())
    assert m["n_trainings"] == len(m["trainings"]) == 2 * (2 * 2 * 2) + 2
    assert len(m["points"]) == 8
    for point in m["points"]:
        key = ("policy", "n_states", "sigma_d2d")
        same = [r for r in m["trainings"] if all(r[k] == point[k] for k in key)]
        accuracy = [r["test_accuracy"] for r in same]
        assert point["test_accuracy"] == pytest.approx(np.mean(accuracy))
        assert point["test_accuracy_sd"] == pytest.approx(np.std(accuracy, ddof=1))
        assert point["n_pulses"] > 0
        assert point["energy"] > 0
    (plain,) = m["baseline"]
    assert plain["n_pulses"] == 0
    assert plain["test_accuracy"] > 0.3  # chance is .1
    search = json.loads((whole / "search.json").read_text())
    assert search["chosen"] == m["chosen"]
    for name in ("advantage", "variation"):
        assert matplotlib.image.imread(whole / f"{name}.png").std() > 0.05


def test_figures_have_a_colour_for_every_policy():
    assert set(_device_figures._COLOURS) == set(get_args(Update))


@pytest.mark.slow
def test_what_is_there_is_not_trained_again(whole, monkeypatch):
    before = json.loads((whole / "metrics.json").read_text())
    (whole / "metrics.json").unlink()
    (whole / "parts" / "ideal-none-8.json").unlink()
    ran = []

    def spy(program, *rest):
        ran.append(program)
        return side_by_side(program, *rest)

    side_by_side = study.side_by_side
    monkeypatch.setattr(study, "side_by_side", spy)
    _run.main(study.Config, study.run, [*SMALL, "--out", str(whole), "--resume"])
    after = json.loads((whole / "metrics.json").read_text())
    assert ran == [Program("ideal", "none", 8)]
    drop = lambda rows: [{k: v for k, v in r.items() if k != "seconds"} for r in rows]  # noqa: E731
    assert drop(after["trainings"]) == drop(before["trainings"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--n-states 64 1", "--n-states must be a whole number >= 2; got 1"),
        ("--dynamic-range 1", "--dynamic-range must be in (1, inf); got 1.0"),
        ("--sigma-d2d 2", "--sigma-d2d must be in [0, 1]; got 2.0"),
        ("--upper 0.2 --lower 0.5", "--upper must pair with --lower, each above"),
        ("--upper 0.2 0.5 --lower 0.1", "--upper must pair with --lower, each above"),
        ("--lr 0", "--lr must be in (0, inf); got 0.0"),
        (
            "--policies one-side --upper 0.8 0.9 0.5",
            "--upper 0.8 0.9 0.5 needs --policies unidirectional",
        ),
        ("--n-states 16 64 64", "--n-states must name each once; got 16 64 64"),
        ("--policies", "--policies must name at least one; got none"),
        ("--hidden", "--hidden must name at least one; got none"),
        ("--dataset digits --batch-size 4000", "--batch-size must be at most 1150 pictures"),
    ],
)
def test_a_design_that_cannot_be_is_refused(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        _run.main(study.Config, study.run, [*argv.split(), "--out", str(tmp_path / "run")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()
