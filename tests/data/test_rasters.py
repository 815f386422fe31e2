"""Samples of several lengths: padding counts for nothing, and what lies on disk is as in memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax.learning import DFA, Decolle, EProp, Perceptron, WTABroadcast, bptt, fitting

KEY = jax.random.key(0)
N, STEPS, START, SIZES = 4, 7, 2, (5, 6, 3)


def samples(rng=None, n=N, steps=STEPS):
    """Counts [n, steps, 5], and lengths of which the longest is all."""
    rng = rng or np.random.default_rng(0)
    lengths = rng.integers(START + 1, steps + 1, n)
    lengths[0] = steps
    return rng.integers(0, 3, (n, steps, SIZES[0])).astype(np.uint8), lengths


def system(n_steps):
    layer = nj.Layer(6, nj.LIF(tau_mem=5.0, r_mem=4.0), rule=nj.ThreeFactor())
    loop = nj.Recurrence("dense")
    net = nj.structured(KEY, 5, [layer], n_classes=3, recurrence=loop)
    rates = nj.Homeostasis(0.1, 0.5, penalty=0.3)  # a term that is there without an error
    return nj.wta_broadcast.system(KEY, net, n_steps=n_steps, start=START, homeostasis=rates)


LEARNERS = {
    "wta_broadcast": lambda n_steps: WTABroadcast(system(n_steps), optax.sgd(1.0)),
    "bptt": lambda n_steps: bptt.learner(system(n_steps), optax.sgd(1.0)),
    "eprop": lambda n_steps: EProp(SIZES, optax.sgd(1.0), n_steps=n_steps, start=START, gain=4.0),
    "decolle": lambda n_steps: Decolle(
        SIZES, optax.sgd(1.0), n_steps=n_steps, start=START, gain=20.0
    ),
}


@functools.cache
def compiled(name, n_steps):
    net = LEARNERS[name](n_steps)

    @jax.jit
    def one(x, y):
        state = net.init(KEY)
        before = net.predict(state, x)
        state, info = net.step(state, x, y, key=KEY)
        return before, state, info

    return one


def learnt(name, x, y, n_steps):
    """Scores before a first batch, the state after it, and what was told."""
    return compiled(name, n_steps)(x, y)


def close(a, b):
    """To rounding: sums of some hundred numbers of the order of 1, in another order."""
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        if jnp.issubdtype(x.dtype, jnp.floating):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_padding_changes_nothing(name):
    """Not more of it, and not what is in it."""
    x, lengths = samples()
    y = jnp.arange(N) % 3
    kept = nj.data.Rasters(x, lengths).mask[..., None]
    full = learnt(name, nj.data.Rasters(jnp.asarray(x), lengths), y, STEPS)
    begun = LEARNERS[name](STEPS).init(KEY).weights
    assert all(float(jnp.abs(w.w - begun[n].w).max()) > 1e-4 for n, w in full[1].weights.items())
    clean = learnt(name, nj.data.Rasters(jnp.asarray(x * kept), lengths), y, STEPS)
    close(full, clean)
    longer = np.pad(x, ((0, 0), (0, 5), (0, 0)), constant_values=7)
    close(full, learnt(name, nj.data.Rasters(jnp.asarray(longer), lengths), y, STEPS + 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wta_broadcast", "eprop"])
def test_samples_of_one_length_need_no_lengths(name):
    x, _ = samples()
    y = jnp.arange(N) % 3
    full = learnt(name, nj.data.Rasters(jnp.asarray(x)), y, STEPS)
    close(full, learnt(name, jnp.asarray(x, float), y, STEPS))


def test_a_learner_that_honours_no_lengths_is_told_so():
    x, lengths = samples()
    net = Perceptron((35, 4, 3), DFA(), optax.sgd(0.1))
    data = nj.data.Rasters(x, lengths), np.arange(N) % 3
    with pytest.raises(TypeError, match=r"Perceptron must have a step .*; got Rasters\(uint8"):
        nj.fit(net, data, key=KEY, epochs=1, batch_size=2, progress=False)


@pytest.mark.parametrize("name", ["eprop", "wta_broadcast"])
def test_a_sample_that_ends_before_the_start_is_refused(name):
    x, lengths = samples()
    lengths[2] = START
    some, y = nj.data.Rasters(x, lengths), np.arange(N) % 3
    net = LEARNERS[name](STEPS)
    said = rf"lengths must be above {START}, the step from which scores count"
    with pytest.raises(ValueError, match=said + r".*; got 2 \(1 of 4\): pass a smaller start"):
        net.predict(net.init(KEY), some)
    with pytest.raises(ValueError, match=said):
        nj.fit(net, (some, y), key=KEY, epochs=1, batch_size=2, progress=False)


@pytest.mark.slow
def test_what_lies_on_disk_learns_the_same(tmp_path, monkeypatch):
    """Bit for bit, a few rows at a time; also after an evaluation in blocks."""
    rng, n, size = np.random.default_rng(1), 70, 8
    x, lengths = samples(rng, n)
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, x.shape)
    file[:] = x
    y, here = np.arange(n) % 3, nj.data.Rasters(x, lengths)
    there = nj.data.Rasters(np.load(tmp_path / "x.npy", mmap_mode="r"), lengths)
    assert there.on_disk
    assert not here.on_disk
    net = LEARNERS["eprop"](STEPS)
    fit = lambda some: nj.fit(  # noqa: E731
        net, (some, y), key=KEY, epochs=2, batch_size=size, val=(some, y), progress=False
    )
    known = fit(here)
    read = []
    real = nj.data.Rasters.loaded
    monkeypatch.setattr(
        nj.data.Rasters, "loaded",
        lambda self, *s: (read.append(real(self, *s).x.nbytes), real(self, *s))[1],
    )  # fmt: skip
    monkeypatch.setattr(fitting, "_IN_MEMORY", 3 * size * x[0].nbytes)
    monkeypatch.setattr(fitting, "_AT_ONCE", 16)
    found = fit(there)
    assert max(read) <= 3 * size * x[0].nbytes
    for a, b in zip(*map(jax.tree.leaves, (known.state, found.state)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(known.history["val_accuracy"], found.history["val_accuracy"])
    with pytest.raises(ValueError, match="must be in memory under jit and vmap"):
        jax.jit(lambda key: fit_under(net, there, y, key))(KEY)


def fit_under(net, x, y, key):
    return nj.fit(net, (x, y), key=key, epochs=1, batch_size=8, progress=False).history


@pytest.mark.parametrize(
    ("x", "lengths", "said"),
    [
        (np.zeros((2, 3)), None, r"x must have shape \[N, T, n\] without a 0; got \(2, 3\)"),
        (np.zeros((2, 0, 3)), None, "without a 0"),
        (np.array([[["a"]]]), None, "x must be numbers"),
        (np.zeros((2, 3, 1)), [1], r"lengths must be one a sample, \[2\]"),
        (np.zeros((2, 3, 1)), [1.0, 2.0], "lengths must be whole numbers; got float64"),
        (np.zeros((2, 3, 1)), [0, 3], r"lengths must be in \[1, 3\].*; got 0 \(1 of 2\)"),
        (np.zeros((2, 3, 1)), [4, 3], r"lengths must be in \[1, 3\].*; got 4 \(1 of 2\)"),
    ],
)
def test_rasters_refuse_what_they_cannot_be(x, lengths, said):
    with pytest.raises((ValueError, TypeError), match=said):
        nj.data.Rasters(x, lengths)


def test_numbers_that_are_not_finite_are_refused():
    x = np.zeros((4, 5, 2), np.float32)
    x[3, 4, 1] = np.nan
    net = EProp((2, 4, 3), optax.sgd(0.1), n_steps=5, start=0)
    with pytest.raises(ValueError, match="x of data must be finite"):
        nj.fit(net, (nj.data.Rasters(x), np.arange(4) % 3), key=KEY, epochs=1, batch_size=2)
