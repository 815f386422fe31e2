"""The loop around a learner: what it shows it, what it keeps, and what it refuses."""

import json
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax._draw import permutation
from neurojax.learning import NotFinite
from neurojax.learning._progress import Progress
from neurojax.learning.perceptron import Perceptron, elu, relu

KEY = jax.random.key(0)
N = 26


class Seen(NamedTuple):
    """How often each sample was seen, and how many batches were."""

    count: Any
    batches: Any
    w: Any


class Counting(eqx.Module):
    """Counts samples by the number that they hold; scores are right for the first `right`."""

    right: int = N
    broken: int = eqx.field(static=True, default=-1)

    def init(self, key, make_weights=None):
        return Seen(jnp.zeros(N), jnp.zeros((), jnp.int32), jnp.zeros(()))

    def step(self, state, x, y, *, key):
        count = state.count.at[x[:, 0].astype(int)].add(1.0)
        w = jnp.where(state.batches == self.broken, jnp.nan, state.w + jax.random.uniform(key))
        return Seen(count, state.batches + 1, w), {
            "accuracy": (y.astype(float) == x[:, 0] % 2).mean()
        }

    def predict(self, state, x, *, key=None):
        right = x[:, 0] % 2
        wrong = jnp.where(x[:, 0] < self.right, right, 1 - right)
        return jax.nn.one_hot(wrong.astype(int), 2)


class Broad(Counting):
    """The same for any number of samples."""

    def init(self, key, make_weights=None):
        return super().init(key)._replace(count=jnp.zeros(1150))


def told(bar, parts):
    """`Progress.stretches` of these parts of an epoch."""
    bar._seen, bar._since, bar._batches = {}, 0.0, 0
    yield from parts


def samples(n=N):
    x = jnp.arange(float(n))
    return x[:, None], x.astype(int) % 2


fit: Any = partial(nj.fit, key=KEY, progress=False)


def test_each_epoch_shows_every_sample_once_but_for_what_is_left_over():
    fitted = fit(Counting(), samples(), epochs=1, batch_size=4)
    assert fitted.state.count.tolist().count(1) == 24  # 26 = 6 * 4 + 2
    assert int(fitted.state.batches) == 6
    longer = fit(Counting(), samples(), epochs=40, batch_size=4).state
    assert longer.count.sum() == 40 * 24
    assert longer.count.min() > 28  # the two left over are drawn anew each time: 4.4 sigma
    np.testing.assert_array_equal(fitted.history["accuracy"], [1.0])  # labels go with samples


@pytest.mark.parametrize("n", [1, 2, 1625, 1626, 200_000])  # no round, one, two; some draws equal
def test_the_order_is_that_of_jax_random_to_the_bit(n):
    ours = permutation(KEY, n)
    theirs = jax.random.permutation(KEY, n)
    np.testing.assert_array_equal(ours, theirs)
    assert (ours.dtype, type(ours)) == (theirs.dtype, type(theirs))


def test_what_was_right_in_an_epoch_is_a_number_of_samples_however_it_was_summed(monkeypatch):
    x, n = jnp.arange(1150.0), 23 * 50
    y = jnp.where(jax.random.bernoulli(KEY, 0.3, (n,)), 1 - x % 2, x % 2).astype(int)
    found = set()
    for ends in ([0, 23], [0, 3, 9, 23], [0, 17, 23]):  # stretches are as long as a clock says
        parts = [*zip(ends, ends[1:], strict=False)]
        monkeypatch.setattr(Progress, "stretches", lambda bar, parts=parts: told(bar, parts))
        found.add(
            float(fit(Broad(), (x[:, None], y), epochs=1, batch_size=50).history["accuracy"][0])
        )
    assert found == {int((y == x.astype(int) % 2).sum()) / n}


def test_an_evaluation_sees_each_sample_once_in_blocks_or_beyond():
    for n in (1, 499, 500, 501, 1260):
        x = jnp.arange(float(n))[:, None]
        found = nj.evaluate(Counting(right=300), Counting().init(KEY), (x, jnp.arange(n) % 2))
        assert found == pytest.approx(min(300, n) / n)


@pytest.fixture(scope="module")
def net():
    return nj.learning.Perceptron((4, 8, 3), nj.learning.DFA(), optax.sgd(0.3, 0.9))


@pytest.fixture(scope="module")
def blobs():
    """Three clouds, and as many to validate with."""
    y = jnp.arange(48) % 3
    x = jax.random.normal(jax.random.key(1), (48, 4)) + 4 * jax.nn.one_hot(y, 4)
    return (x[:24], y[:24]), (x[24:], y[24:])


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_learns(net, blobs):
    train, val = blobs
    fitted = fit(net, train, val=val, epochs=60, batch_size=8)
    assert fitted.history["val_accuracy"][-1] >= 0.8
    found = nj.evaluate(net, fitted.state, val)
    assert found == pytest.approx(fitted.history["val_accuracy"][-1])


def test_a_folder_goes_on_where_it_stopped_bit_for_bit(net, blobs, tmp_path):
    train, val = blobs
    run = partial(fit, net, train, val=val, batch_size=8)
    whole = run(epochs=3)
    run(epochs=1, folder=tmp_path / "kept", log=tmp_path / "log")
    went_on = run(epochs=3, folder=tmp_path / "kept", log=tmp_path / "log")
    same(whole.state, went_on.state)
    for name in ("accuracy", "val_accuracy"):
        np.testing.assert_array_equal(whole.history[name], went_on.history[name])
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["val_accuracy"] for line in lines] == whole.history["val_accuracy"].tolist()
    again = run(epochs=3, folder=tmp_path / "kept")  # nothing is left to do
    same(whole.state, again.state)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (dict(key=jax.random.key(1)), "its key was"),
        (dict(batch_size=4), "its batch_size was 8, not 4"),
        (dict(patience=2), "its patience was None, not 2"),
    ],
)
def test_another_fit_does_not_go_on(net, blobs, tmp_path, other, told):
    train, val = blobs
    how: Any = dict(epochs=1, val=val, batch_size=8, folder=tmp_path / "kept")
    fit(net, train, **how)
    with pytest.raises(ValueError, match=told):
        fit(net, train, **how | other)
    with pytest.raises(ValueError, match="its data was"):
        fit(net, (train[0] + 1, train[1]), **how)
    with pytest.raises(ValueError, match="its learner was"):
        fit(eqx.tree_at(lambda n: n.gain, net, jnp.float32(2.0)), train, **how)


def test_other_functions_do_not_go_on_and_the_same_made_again_do(blobs, tmp_path):
    """Which show nothing of what they hold: a rate of an optimiser, an augmentation."""
    made = lambda lr, activation=elu: Perceptron(  # noqa: E731
        (4, 5, 3), nj.learning.DFA(), optax.sgd(lr), activation=activation
    )
    how: Any = dict(epochs=1, batch_size=8, folder=tmp_path / "kept")
    fit(made(0.1), blobs[0], **how)
    fit(made(0.1), blobs[0], **how)
    others: Any = [
        (made(0.2), {}),
        (made(0.1, relu), {}),
        (made(0.1), {"augment": lambda key, x: 2 * x}),
        (made(0.1), {"encode": lambda key, x: x}),
        (made(0.1), {"make_weights": lambda w, wiring, key: nj.Ideal(w / 2, wiring)}),
    ]
    for learner, options in others:
        with pytest.raises(ValueError, match="its learner, augment, encode or make_weights was"):
            fit(learner, blobs[0], **how, **options)


def test_a_longer_training_is_not_cut_short(net, blobs, tmp_path):
    how: Any = dict(batch_size=8, folder=tmp_path)
    fit(net, blobs[0], epochs=2, **how)
    with pytest.raises(ValueError, match=r"epochs must be at least 2, which folder '.*' holds"):
        fit(net, blobs[0], epochs=1, **how)


def test_an_evaluation_refuses_a_whole_set_and_other_classes(untyped):
    part = nj.data.Split(jnp.ones((8, 1, 3)), jnp.arange(8) % 2)
    state = fit(Counting(), part, epochs=1, batch_size=4).state
    with pytest.raises(TypeError, match="got Dataset: pass data.val or data.test"):
        nj.evaluate(Counting(), state, nj.data.Dataset("mine", part, part, part, 2))
    with pytest.raises(ValueError, match=r"y of data must be in \[0, 2\), .*; got 97"):
        nj.evaluate(Counting(), state, (jnp.ones((2, 3)), jnp.array([0, 97])))


@pytest.mark.slow
def test_many_seeds_at_once_are_each_by_itself(net, blobs):
    train, val = blobs
    run = lambda key: fit(net, train, val=val, key=key, epochs=2, batch_size=8)  # noqa: E731
    keys = jax.random.split(KEY, 3)
    mapped = jax.vmap(run)(keys)
    alone = run(keys[1])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6),
        mapped.state, alone.state,
    )  # fmt: skip
    assert mapped.history["val_accuracy"].shape == (3, 2)


def test_a_learning_rate_is_swept_by_vmap(blobs):
    train, _ = blobs

    def last(lr):
        net = nj.learning.Perceptron((4, 3), nj.learning.Backprop(), optax.sgd(lr))
        return fit(net, train, epochs=2, batch_size=8).state.weights["w1"].w

    swept = jax.vmap(last)(jnp.array([0.1, 0.4]))
    np.testing.assert_allclose(swept[1], last(0.4), rtol=1e-5, atol=1e-6)
    assert (swept[0] != swept[1]).any()


class Falling(Counting):
    """Right for fewer samples with each batch, after the third."""

    def predict(self, state, x, *, key=None):
        right = x[:, 0] % 2
        few = jnp.where(state.batches <= 3, 5 * state.batches, 14 - state.batches)
        return jax.nn.one_hot(jnp.where(x[:, 0].astype(int) < few, right, 1 - right).astype(int), 2)


@pytest.mark.slow
def test_patience_stops_and_gives_back_the_best(tmp_path):
    run = partial(fit, Falling(), samples(), val=samples(), batch_size=N)
    fitted = run(epochs=20, patience=2)
    assert int(fitted.state.batches) == 3
    assert len(fitted.history["val_accuracy"]) == 5
    run(epochs=4, patience=2, folder=tmp_path)
    same(run(epochs=20, patience=2, folder=tmp_path).state, fitted.state)
    assert int(run(epochs=20).state.batches) == 20


def test_inputs_are_augmented_in_training_alone_and_encoded_always():
    seen: dict[str, list] = {"step": [], "predict": []}

    class Looking(Counting):
        def step(self, state, x, y, *, key):
            jax.debug.callback(lambda x: seen["step"].append(np.asarray(x)), x)
            return super().step(state, x[:, :1], y, key=key)

        def predict(self, state, x, *, key=None):
            jax.debug.callback(lambda x: seen["predict"].append(np.asarray(x)), x)
            return super().predict(state, x, key=key)

    draw = lambda key, x: jax.random.uniform(key, (len(x), 1))  # noqa: E731
    augment = lambda key, x: jnp.concatenate([x, draw(key, x)], 1)  # noqa: E731
    encode = lambda key, x: jnp.concatenate([x, draw(key, x)], 1)  # noqa: E731
    fit(Looking(), samples(), val=samples(), epochs=2, batch_size=13, augment=augment,
        encode=encode)  # fmt: skip
    jax.effects_barrier()
    assert [x.shape for x in seen["step"]] == 4 * [(13, 3)]
    assert [x.shape for x in seen["predict"]] == 2 * [(N, 2)]
    drawn = np.concatenate([x[:, 1:].ravel() for x in seen["step"]])
    assert len(np.unique(drawn)) == 4 * 13 * 2  # no batch, sample or use has another's chance


def test_one_that_settles_sees_inputs_before_it_learns():
    class Settling(Counting):
        def settle(self, state, x, *, key):
            return state._replace(w=state.w + x.sum())

    first = fit(Settling(), samples(), epochs=1, batch_size=13).state.w
    plain = fit(Counting(), samples(), epochs=1, batch_size=13).state.w
    assert first - plain == pytest.approx(15 * sum(range(N)), rel=1e-6)  # 30 batches of half
    begun = Counting().init(KEY)
    again = fit(Settling(), samples(), epochs=1, batch_size=13, state=begun)
    same(again.state, fit(Counting(), samples(), epochs=1, batch_size=13).state)  # once is enough


def test_what_is_lost_is_named_and_the_last_epoch_kept(tmp_path):
    run = partial(fit, Counting(broken=5), samples(), batch_size=13, folder=tmp_path)
    with pytest.raises(NotFinite, match=r"w must stay finite; got NaN or infinity in epoch 3"):
        run(epochs=4)
    with pytest.raises(NotFinite) as lost:
        run(epochs=4)  # goes on from the second, and is lost again
    assert int(lost.value.state.batches) == 4


def test_a_hook_is_told_what_the_history_holds(net, blobs):
    told = []
    hook = lambda epoch, seen: told.append((epoch, seen))  # noqa: E731
    fitted = fit(net, blobs[0], val=blobs[1], epochs=2, batch_size=8, hook=hook)
    assert [epoch for epoch, _ in told] == [1, 2]
    for name, values in fitted.history.items():
        assert [seen[name] for _, seen in told] == values.tolist()


def test_progress_is_a_line_an_epoch_on_a_pipe(net, blobs, capsys):
    nj.fit(net, blobs[0], val=blobs[1], key=KEY, epochs=2, batch_size=8)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch   1/2  train ")
    fit(net, blobs[0], epochs=1, batch_size=8)
    assert capsys.readouterr().out == ""


def test_pictures_of_a_set_are_flattened_and_validated_by_its_own():
    x, y = samples(8)
    part = nj.data.Split(np.asarray(x, np.float32)[:, None], np.asarray(y))
    sets = nj.data.Dataset("mine", part, part, part, 2)
    fitted = fit(Counting(right=2), sets, epochs=1, batch_size=4)
    assert fitted.history["val_accuracy"].tolist() == [0.25]
    assert nj.evaluate(Counting(right=2), fitted.state, sets.test) == 0.25


ONES = np.ones((5, 3))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (dict(data=(ONES, np.ones(4, int))), r"\[N, ...\] and \[N\], without a 0; got \[5, 3\]"),
        (dict(data=(ONES.astype(np.uint8), np.ones(5, int))), "got uint8: pass x / 255"),
        (dict(data=(ONES, np.ones((5, 3)))), r"must be \[N\] labels; .* pass y.argmax\(1\)"),
        (dict(data=(ONES * np.nan, np.ones(5, int))), "x of data must be finite"),
        (dict(data=ONES), "data must be"),
        (dict(data=samples(), val=3), "val must be"),
        (dict(batch_size=27), "batch_size must be at most 26 samples; got 27"),
        (dict(epochs=0), "epochs must be a whole number >= 1"),
        (dict(patience=1), r"patience needs validation samples; pass val=\(x, y\)"),
        (dict(data=(samples()[0], samples()[1] + 1)), r"y of data must be in \[0, 2\)"),
        (dict(val=(samples()[0], samples()[1] - 1)), r"y of val must be in \[0, 2\)"),
        (dict(data=(samples()[0], samples()[1].astype(float))), "y of data must be whole"),
        (dict(state=Seen(0, 0, 0), folder="here"), "state and folder: pass one of them"),
        (dict(key=0), "key must be"),
        (dict(state=3), "state must be what learner.init makes, a Seen; got 3"),
        (dict(learner=nj.learning.DFA()), "learner must have step, predict"),
        (dict(learner=nj.learning.DFA), "learner must be an instance"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(given, told, untyped):
    usual = dict(learner=Counting(), data=samples(), epochs=1, batch_size=1)
    with pytest.raises((ValueError, TypeError), match=told):
        fit(**usual | given)


def test_what_cannot_be_traced_is_refused(net, blobs, tmp_path):
    run = lambda key: fit(net, blobs[0], key=key, epochs=1, batch_size=8, log=tmp_path)  # noqa: E731
    with pytest.raises(ValueError, match="log, hook and mesh must be None under jit and vmap"):
        jax.vmap(run)(jax.random.split(KEY, 2))
