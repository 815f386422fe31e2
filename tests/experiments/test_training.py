"""The loop around the learning system, part by part: what it is shown, in which order, and what
is counted. The learning step itself is a stand-in that writes down what it is given."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from experiments import _config, _finite, _training
from experiments import wta_broadcast as wta
from experiments._options import part
from neurojax import data
from neurojax.data import augment
from neurojax.learning import WTABroadcast
from neurojax.learning import wta_broadcast as wb
from neurojax.learning._progress import Progress
from neurojax.network import fold

PLAIN = _config.resolved(
    wta.Config(
        augment="none", batch_size=4, epochs=3, average=0.75, hidden=(3, 5), recurrence="none",
        readout_density=1.0, readout_population=1,
    )
)  # fmt: skip
RULE, DATA = part(PLAIN, _config.Learning), part(PLAIN, _config.Data)


def key_bits(key) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


# --- the optimiser ---

HIDDEN, READOUT = "input->h1", "h1->readout"


def updates(rule, n_batches, gradients):
    """Updates that one gradient after the other leads to, from weights of 2."""
    tx = _training.optimiser(rule, n_batches)
    weights = {name: jnp.full(1, 2.0) for name in (HIDDEN, READOUT)}
    state, out = tx.init(weights), []
    one = jax.jit(tx.update)
    with jax.numpy_dtype_promotion("standard"):
        for g in gradients:
            update, state = one({n: jnp.full(1, g) for n in weights}, state, weights)
            out.append({n: float(u[0]) for n, u in update.items()})
    return out


RATES = {HIDDEN: 0.25, READOUT: 0.5}
COSINE = [0.5 * (1 + np.cos(np.pi * i / 4)) for i in range(5)]  # of 4 batches, then 0


def test_adam_steps_by_the_rate_of_its_layer_and_decays_weights():
    rule = replace(RULE, lr=0.25, lr_readout=0.5, weight_decay=0.125)
    for i, update in enumerate(updates(rule, 4, [3.0] * 5)):
        for name, lr in RATES.items():
            # A constant gradient is divided by its own size; eps is 1e-8.
            expected = -lr * COSINE[i] * (1 + 0.125 * 2)
            assert update[name] == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("optimiser", "kept"), [("sgd", 0.0), ("momentum", 0.9)])
def test_plain_descent_follows_the_gradient_and_momentum_what_came_before(optimiser, kept):
    rule = replace(RULE, lr=0.25, lr_readout=0.5, weight_decay=0.125, optimiser=optimiser)
    gradients, velocity = [1.0, -2.0, 0.5, 4.0, 1.0], 0.0
    for i, update in enumerate(updates(rule, 4, gradients)):
        velocity = kept * velocity + gradients[i] + 0.125 * 2
        for name, lr in RATES.items():
            assert update[name] == pytest.approx(-lr * COSINE[i] * velocity, rel=1e-5, abs=1e-7)


# --- what a picture becomes ---


def pictures(n=6, shape=(5, 4)):
    return jnp.asarray(np.random.default_rng(0).uniform(0.2, 1.0, (n, *shape)), jnp.float32)


def test_pictures_come_flat_or_row_by_row():
    x, key = pictures(), jax.random.key(0)
    np.testing.assert_array_equal(_training.encoded(DATA, key, x), x.reshape(6, 20))
    rows = replace(DATA, presentation="rows")
    np.testing.assert_array_equal(_training.encoded(rows, key, x), x)
    colour = pictures(shape=(5, 2, 3))
    np.testing.assert_array_equal(_training.encoded(rows, key, colour), colour.reshape(6, 5, 6))


def test_latency_spikes_once_at_the_time_that_brightness_says():
    latency = replace(DATA, encoding="latency", n_steps=9)
    x = pictures()
    z = np.asarray(_training.encoded(latency, jax.random.key(0), x))
    assert z.shape == (6, 9, 20)
    when = np.round((1 - np.asarray(x).reshape(6, 20)) * 8)
    np.testing.assert_array_equal(z.argmax(1), when)
    np.testing.assert_array_equal(z.sum(1), 1)


def test_poisson_pictures_have_their_rate_and_draws_of_their_own():
    poisson = replace(DATA, encoding="poisson", n_steps=400, max_rate=500.0)
    same = jnp.broadcast_to(pictures(1), (6, 5, 4))
    z = np.asarray(_training.encoded(poisson, jax.random.key(3), same))
    assert z.shape == (6, 400, 20)
    assert len({row.tobytes() for row in z}) == 6
    p = 0.5 * np.asarray(same[0]).ravel()  # 500 Hz in steps of 1 ms
    # 4 standard errors of 2,400 draws
    assert (np.abs(z.mean((0, 1)) - p) < 4 * np.sqrt(p * (1 - p) / 2400)).all()
    other = np.asarray(_training.encoded(poisson, jax.random.key(4), same))
    assert (z != other).any()


def test_inputs_are_centred_by_the_pictures_that_teach():
    rng = np.random.default_rng(0)
    some = lambda low: data.Split(  # noqa: E731
        rng.uniform(low, 1, (50, 3, 2)).astype(np.float32), np.zeros(50, np.int32)
    )
    sets = data.Dataset("idx", some(0.2), some(0.5), some(0.7), 2)
    sets.train.images[:, 0, 0] = 0.4  # never changes where it is learnt from
    for each in (sets.train, sets.val, sets.test):
        each.images[:, 1] += 1000  # in float32 their mean would be off
    of = lambda c: part(_config.resolved(c, 40), _config.Data)  # noqa: E731
    centred = of(wta.Config(dataset="idx", train_size=40))
    made, learnt = _training.shown(centred, sets), sets.train.images[:40].astype(float)
    spread = np.sqrt(learnt.var(0).mean())
    for was, now in zip((sets.train, sets.val, sets.test), made[1:4], strict=True):
        right = (was.images - learnt.mean(0)) / spread
        np.testing.assert_allclose(now.images, right, rtol=1e-6, atol=1e-6)
        assert now.labels is was.labels
    assert made.train.images.dtype == np.float32
    assert _training.shown(of(wta.Config(dataset="mnist")), sets) is sets
    blank = data.Split(np.full((4, 2, 2), 0.5, np.float32), np.arange(4))
    empty = _training.shown(centred, data.Dataset("idx", blank, blank, blank, 4))
    np.testing.assert_array_equal(empty.test.images, 0.0)


def test_dropped_pixels_are_made_up_for_by_the_others():
    dropped = replace(DATA, input_dropout=0.25)
    x = jnp.broadcast_to(pictures(1, (20, 20)), (6, 20, 20))
    seen = np.asarray(_training.perturbed(dropped, jax.random.key(0), x))
    kept = seen != 0
    np.testing.assert_allclose(seen[kept], np.asarray(x)[kept] / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / kept.size)
    assert len({picture.tobytes() for picture in kept}) == 6
    drawn = jax.random.bernoulli(fold(jax.random.key(0), "dropout"), 0.75, x.shape)
    np.testing.assert_array_equal(kept, drawn)  # by a key of its own, beside those of the warp
    assert (kept != (np.asarray(_training.perturbed(dropped, jax.random.key(1), x)) != 0)).any()


@pytest.mark.parametrize(("kind", "part"), [("affine", 1.0), ("weak", 0.5)])
def test_each_picture_is_warped_by_a_map_of_its_own(kind, part):
    warped = replace(DATA, augment=kind)
    x = jnp.broadcast_to(pictures(1, (8, 8)), (3, 8, 8))
    seen = jax.jit(partial(_training.perturbed, warped))(jax.random.key(5), x)
    limits = dict(rotation=0.2 * part, scale=0.1 * part, shift=part, shear=0.15 * part)
    keys = jax.random.split(jax.random.key(5), 3)
    expected = jax.jit(jax.vmap(partial(augment.affine, **limits)))(keys, x)
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    assert len({np.asarray(picture).tobytes() for picture in seen}) == 3


def test_each_picture_is_mirrored_by_a_draw_of_its_own():
    x = jnp.broadcast_to(pictures(1, (8, 8)), (8, 8, 8))
    seen = _training.perturbed(replace(DATA, augment="mirror"), jax.random.key(5), x)
    keys = jax.random.split(jax.random.key(5), 8)
    np.testing.assert_array_equal(seen, jax.vmap(augment.mirrored)(keys, x))
    assert len({np.asarray(picture).tobytes() for picture in seen}) == 2


def test_without_augmentation_pictures_stay_as_they_are():
    x = pictures()
    np.testing.assert_array_equal(_training.perturbed(DATA, jax.random.key(0), x), x)


# --- a stretch of batches ---


class Diary(NamedTuple):
    """In place of the training state: what each step was given."""

    step: Array
    x: Array
    labels: Array
    anneal: Array
    feedback: Array
    average_decay: Array


@pytest.fixture(scope="module")
def system():
    """A small network: 4 inputs, 3 hidden neurons, 2 classes."""
    net, task = part(PLAIN, _config.Network), _training.Task(4, 2, 20, start=5)
    return eqx.filter_jit(partial(wta.build, net, RULE, task))(jax.random.key(0))


@pytest.fixture
def learn(system, monkeypatch, untyped):
    """Go through batches in stretches; the diary and what was seen."""
    told = []

    def note(taught, tx, state, x, labels, *, anneal, average_decay, changes):
        told.append(changes)
        i = state.step
        rates = {"h1": jnp.full((4, 3), 0.25), "h2": jnp.full((4, 5), 0.75)}
        scores = jax.nn.one_hot(jnp.where(jnp.arange(4) == 0, 1 - labels, labels), 2)  # one wrong
        return Diary(
            i + 1, state.x.at[i].set(x), state.labels.at[i].set(labels),
            state.anneal.at[i].set(anneal), state.feedback.at[i].set(taught.feedback["h1"].spread),
            state.average_decay.at[i].set(average_decay),
        ), wb.Outcome(scores, rates)  # fmt: skip

    def run(shown, rule, key, stretches=((0, 1), (1, 4)), order=None, make=WTABroadcast):
        monkeypatch.setattr(wb, "update", note)
        steps = _training.trainer(shown, _training.learner(rule, system, 8, make))
        images, labels = jnp.ones((16, 2, 2)), jnp.arange(16) % 2
        order = jnp.arange(16).reshape(4, 4) if order is None else order
        shape = system.feedback["h1"].spread.shape
        state = Diary(
            jnp.asarray(0), jnp.zeros((4, 4, 4)), jnp.full((4, 4), -1), jnp.zeros(4),
            jnp.zeros((4, *shape)), jnp.zeros(4),
        )  # fmt: skip
        sums = []
        for stretch in stretches:
            state, seen = steps.learn(state, images, labels, order, key, jnp.asarray(stretch))
            sums.append([float(seen["accuracy"].sum()), float(seen["rate"].sum())])
        return state, sums

    run.told = told
    return run


@pytest.mark.slow
def test_no_two_batches_draw_alike_and_no_two_epochs(learn):
    dropped = replace(DATA, input_dropout=0.5)
    first, _ = learn(dropped, RULE, jax.random.key(0))
    again, _ = learn(dropped, RULE, jax.random.key(0), stretches=((0, 2), (2, 3), (3, 4)))
    other, _ = learn(dropped, RULE, jax.random.key(1))
    np.testing.assert_array_equal(first.x, again.x)  # stretches decide nothing
    assert len({np.asarray(x).tobytes() for x in [*first.x, *other.x]}) == 8


def test_perturbation_and_encoding_draw_apart(learn, monkeypatch):
    draw = lambda key, n: jax.random.uniform(key, (4, n))  # noqa: E731
    monkeypatch.setattr(_training, "perturbed", lambda data, key, images: draw(key, 2))
    both = lambda data, key, images: jnp.concatenate([images, draw(key, 2)], 1)  # noqa: E731
    monkeypatch.setattr(_training, "encoded", both)
    diary, _ = learn(DATA, RULE, jax.random.key(0))
    for i, x in enumerate(diary.x):
        at = jax.random.fold_in(jax.random.key(0), i)
        own = [draw(fold(at, name), 2) for name in ("perturb", "encode")]
        np.testing.assert_array_equal(x, jnp.concatenate(own, 1))
    assert len(np.unique(diary.x)) == 4 * 4 * 4


def test_each_label_stays_with_its_picture_and_anneal_falls_to_a_tenth(learn):
    order = jnp.asarray(np.random.default_rng(1).permutation(16).reshape(4, 4))
    diary, sums = learn(DATA, RULE, jax.random.key(0), order=order)
    np.testing.assert_array_equal(diary.labels, order % 2)
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 8))  # of 8 batches in all
    np.testing.assert_allclose(diary.anneal, 0.1 + 0.9 * cosine, rtol=1e-6)
    np.testing.assert_allclose(diary.average_decay, 0.75)
    # one batch, then three; three of four right; rates: mean over layers
    np.testing.assert_allclose(sums, [[0.75, 0.5], [2.25, 1.5]], rtol=1e-6)


def test_feedback_is_fixed_or_drawn_anew_for_each_batch(learn, system):
    fixed, _ = learn(DATA, RULE, jax.random.key(0))
    own = system.feedback["h1"].spread
    np.testing.assert_array_equal(fixed.feedback, jnp.broadcast_to(own, (4, *own.shape)))
    drawn, _ = learn(DATA, replace(RULE, redraw_feedback=True), jax.random.key(0))
    assert len({np.asarray(x).tobytes() for x in [*drawn.feedback, own]}) == 5
    for i, found in enumerate(drawn.feedback):
        key = fold(jax.random.fold_in(jax.random.key(0), i), "feedback")
        expected = _training.feedback(RULE.bandwidth, {"h1": 3}, 2, key)["h1"].spread
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_changes_that_are_asked_for_are_those_of_the_caller(learn):
    own = partial(wb.deltas)
    learn(DATA, RULE, jax.random.key(0), make=partial(WTABroadcast, changes=own))
    assert len(learn.told) > 0
    assert all(changes is own for changes in learn.told)


# --- epochs ---


def shown(n=18, first_epoch=0, key=0, lost_at=None):
    """Order and key of each epoch, over pictures that bear their own number."""
    seen: list[Any] = []

    def learn(state, x, y, order, key, ends):
        images, labels, stretch = x, y, ends
        np.testing.assert_array_equal(images[:, 0, 0], labels)
        assert all(isinstance(x, Array) for x in (images, labels, order, stretch))
        if int(stretch[0]) == 0:
            seen.append((np.asarray(order), key_bits(key)))
        n = int(stretch[1] - stretch[0])
        state = state._replace(step=state.step + n)
        if lost_at is not None:
            state = state._replace(weights={"w": jnp.where(state.step > lost_at, jnp.nan, 1.0)})
        return state, {"accuracy": jnp.asarray(n / 4), "rate": jnp.asarray(n / 2)}

    numbers = np.arange(n)
    split = data.Split(np.broadcast_to(numbers[:, None, None], (n, 1, 1)), numbers)
    bar, epochs = Progress(3, n // 4, first_epoch), range(first_epoch, 3)
    fresh: Any = wb.TrainState({}, (), {}, ({}, {}), jnp.asarray(0), jax.random.key(0))
    states = _training.train(learn, fresh, split, jax.random.key(key), epochs, 4, bar)
    told = [(epoch, int(state.step)) for epoch, state in states]
    assert bar.means == {"accuracy": 0.25, "rate": 0.5}  # the bar is told what was seen
    return seen, told


def test_every_epoch_has_an_order_and_a_key_of_its_own():
    seen, states = shown()
    assert states == [(1, 4), (2, 8), (3, 12)]  # 18 // 4 batches an epoch
    for epoch, (order, key) in enumerate(seen):
        own = jax.random.fold_in(fold(jax.random.key(0), "epoch"), epoch)
        assert key == key_bits(own)
        drawn = jax.random.permutation(fold(own, "order"), 18)[:16].reshape(4, 4)
        np.testing.assert_array_equal(order, drawn)  # so a run can be had again
        assert order.shape == (4, 4)
        assert len(np.unique(order)) == 16
        assert set(order.ravel()) <= set(range(18))
    assert len({order.tobytes() for order, _ in seen}) == 3
    assert len({key for _, key in seen}) == 3
    assert len(set(np.concatenate([order.ravel() for order, _ in seen]))) == 18  # none left out


def test_a_run_that_goes_on_sees_what_it_would_have_seen():
    (_, *expected), _ = shown()
    seen, states = shown(first_epoch=1)
    assert [epoch for epoch, _ in states] == [2, 3]
    for (order, key), (order_before, key_before) in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(order, order_before)
        assert key == key_before
    other, _ = shown(key=1)
    assert (other[1][0] != expected[0][0]).any()


def test_no_epoch_begins_or_ends_with_what_is_lost():
    with pytest.raises(_finite.NotFinite, match="in batch 3 of epoch 2"):
        shown(lost_at=6)
    fresh: Any = wb.TrainState(
        {"w": jnp.full(1, jnp.nan)}, (), {}, ({}, {}), jnp.asarray(0), jax.random.key(0)
    )
    split = data.Split(np.zeros((4, 1, 1)), np.arange(4))
    bar = Progress(3, 1, 0)
    epochs = _training.train(print, fresh, split, jax.random.key(0), range(3), 4, bar)
    with pytest.raises(_finite.NotFinite, match="before the first batch"):
        next(epochs)


def test_thresholds_settle_on_thirty_batches_in_turn():
    taken = []

    def settle(state, images):
        assert isinstance(images, Array)
        taken.append(np.asarray(images).ravel())
        return state + 1

    split = data.Split(np.arange(10.0).reshape(10, 1, 1), np.arange(10))
    run = SimpleNamespace(settle=settle)
    assert _training.settled(run, 0, split, 4) == 30  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(np.concatenate(taken), np.arange(120) % 10)


# --- evaluation ---

KEY = jax.random.key(0)


class Judge:
    """In place of a trained network: decides what the first pixel says, and fires accordingly."""

    def __init__(self):
        self.system = SimpleNamespace(hidden=("h1", "h2"))
        self.sizes: list[int] = []
        self.keys: list[tuple[int, ...]] = []
        self.given: list[Any] = []

    def predict(self, system, weights, tone, images, key):
        assert isinstance(images, Array)
        self.sizes.append(len(images))
        self.keys.append(key_bits(key))
        self.given.append((system, weights, tone))
        decided = images[:, 0, 0].astype(int)
        rates = {
            "h1": jnp.stack([images[:, 0, 1], jnp.zeros(len(images))], 1),
            "h2": jnp.full((len(images), 1), 0.25),
        }
        return wb.Outcome(jax.nn.one_hot(decided, 3), {n: rates[n] for n in system.hidden})


def test_every_picture_counts_once_also_beyond_the_first_500():
    n, judge = 1203, Judge()
    labels = np.arange(n) % 3
    images = np.zeros((n, 1, 2), np.float32)
    images[:, 0, 0] = labels
    wrong = np.r_[3, 499:502, 998:1001, 1150:1203]  # of which all but four are beyond the 500th
    images[wrong, 0, 0] = (labels[wrong] + 1) % 3
    images[:, 0, 1] = np.arange(n) / n
    average = ({"w": 1}, {"tone": 2})
    found = _training.evaluate(judge, average, data.Split(images, labels), KEY)  # pyright: ignore[reportArgumentType]
    assert judge.sizes == [500, 500, 203]
    assert len(set(judge.keys)) == 3
    assert judge.given == 3 * [(judge.system, *average)]
    assert found.accuracy == (n - len(wrong)) / n
    exact = images[:, 0, 1].astype(float).mean()  # summed in double precision
    assert found.spikes["h1"] == pytest.approx([exact, 0.0], rel=1e-13)
    assert {type(x) for x in (found.accuracy, *found.active.values())} == {float}
    assert found.spikes["h2"] == pytest.approx([0.25])
    assert found.active == {"h1": 0.5, "h2": 1.0}
    other = SimpleNamespace(hidden=("h2",))
    some = data.Split(images[:7], labels[:7])
    alone = _training.evaluate(judge, average, some, KEY, system=other)  # pyright: ignore[reportArgumentType]
    assert judge.given[-1][0] is other
    assert alone.active == {"h2": 1.0}


def test_pictures_that_are_not_there_have_no_accuracy():
    none = data.Split(np.zeros((0, 1, 2), np.float32), np.zeros(0, int))
    with pytest.raises(ValueError, match="split must hold one picture at least; got none"):
        _training.evaluate(Judge(), (0, 0), none, KEY)  # pyright: ignore[reportArgumentType]


def test_draws_of_an_evaluation_follow_from_its_key():
    split = data.Split(np.zeros((501, 1, 2), np.float32), np.zeros(501, int))
    keys = []
    for seed in (0, 0, 1):
        judge = Judge()
        _training.evaluate(judge, (0, 0), split, jax.random.key(seed))  # pyright: ignore[reportArgumentType]
        keys.append(tuple(judge.keys))
    assert keys[0] == keys[1] != keys[2]


def test_each_layer_alone_is_judged_without_the_readout_of_the_others(system):
    judge, asked = Judge(), []

    def predict(system, weights, tone, images, key):
        asked.append((set(system.network.projections), set(weights), tone))
        heard = 1.0 * ("h1->readout" in weights) + 2.0 * ("h2->readout" in weights)
        return judge.predict(system, weights, tone, images + jnp.float32(heard), key)

    images = np.zeros((4, 1, 2), np.float32)
    split = data.Split(images, np.array([1, 1, 1, 2]))
    average = ({n: n for n in system.network.projections}, "tone")
    run = SimpleNamespace(system=system, predict=predict)
    found = _training.layer_accuracy(run, average, split, KEY)  # pyright: ignore[reportArgumentType]
    assert found == [0.75, 0.25]
    for (wired, held, tone), left_out in zip(asked, ("h2", "h1"), strict=True):
        assert wired == held == set(system.network.projections) - {f"{left_out}->readout"}
        assert tone == "tone"


def test_synaptic_events_are_spikes_times_the_synapses_that_they_reach(system):
    spikes = {"h1": np.array([0.5, 0.0, 0.25]), "h2": np.array([0.0, 1.0, 0.0, 0.0, 0.125])}
    # Of h1: 5 neurons of h2, and 2 classes; of h2: 2 classes. Over 20 steps.
    expected = 20 * (0.75 * (5 + 2) + 1.125 * 2)
    assert _training.synaptic_events(system, spikes) == pytest.approx(expected)


def test_settling_and_judging_see_pictures_as_they_are_encoded(system, monkeypatch):
    shown = replace(DATA, encoding="poisson", n_steps=5, augment="affine", input_dropout=0.5)
    monkeypatch.setattr(wb, "settle", lambda system, state, x: (state.weights, x))
    monkeypatch.setattr(
        wb, "predict", lambda system, weights, tone, x, *, key: (system, weights, tone, x, key)
    )
    steps = _training.trainer(shown, _training.learner(RULE, system, 8))
    x, key = pictures(), jax.random.key(7)
    seen = _training.encoded(shown, key, x)
    state = wb.TrainState({}, None, {}, ({}, {}), jnp.asarray(0), key)
    np.testing.assert_array_equal(steps.settle(state, x)[1], seen)
    got = steps.predict(system, "weights", "tone", x, key)
    assert got[1:3] == ("weights", "tone")
    np.testing.assert_array_equal(got[3], seen)
    assert key_bits(got[4]) == key_bits(key)


def test_feedback_has_the_channels_asked_for_and_draws_for_each_layer():
    sizes = {"h1": 6, "h2": 6}
    made = _training.feedback(2, sizes, 4, jax.random.key(0))
    assert {n: (b.spread.shape, b.channels.shape) for n, b in made.items()} == {
        "h1": ((6, 2), (2, 4)), "h2": ((6, 2), (2, 4))
    }  # fmt: skip
    assert (made["h1"].spread != made["h2"].spread).any()
