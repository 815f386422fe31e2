"""The form for GPUs does what the loops do, many senders at once; here it runs on a CPU."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax.wiring import events, visits
from neurojax.wiring._events_gpu import chunks, in_chunks
from neurojax.wiring._events_triton import summed
from neurojax.wiring.visits import Visit

N_PRE, N_POST, EDGES, LONGEST = 60, 40, 700, 9
RNG = np.random.default_rng(0)
WIRING, W = nj.by_sender(
    RNG.integers(0, N_PRE, EDGES), RNG.integers(0, N_POST, EDGES), N_PRE, N_POST,
    jnp.asarray(RNG.normal(size=EDGES), jnp.float32),
)  # fmt: skip
WIRING = WIRING.with_columns()
PRE, POST = (np.asarray(x) for x in WIRING.edges()[:2])
ROUNDING = 60 * np.finfo(np.float32).eps  # of sums of at most 60 terms of size 1, in any order
at_run_time = (RuntimeError, ValueError)  # XLA raises either
done = jax.block_until_ready


def fired(*shape, part=0.3):
    return jnp.asarray((RNG.random(shape) < part) * RNG.uniform(0.5, 2, shape), jnp.float32)


@pytest.fixture
def on_gpu(monkeypatch):
    """The products take the form for GPUs, seven senders at a time: the last chunk is not full."""
    real = jax.lax.platform_dependent

    def chosen(*arguments, cuda=None, **forms):
        return real(*arguments, default=cuda) if cuda else real(*arguments, **forms)

    monkeypatch.setattr(jax.lax, "platform_dependent", chosen)
    for module in (events, visits):
        monkeypatch.setattr(module, "chunks", lambda longest: chunks(longest, 7))


def test_every_sender_that_is_not_silent_is_looked_at_once_and_in_order():
    @jax.jit
    def turn(s):  # in which each is looked at
        put = lambda js, c: (c[0].at[js].add(c[1], mode="drop"), c[1] + 1)  # noqa: E731
        return in_chunks(s, lambda j, _: j, put, (jnp.zeros(50, int), 1), longest=1, size=7)

    for part in (0.0, 0.02, 0.3, 1.0):
        s = fired(50, part=part)
        turns, n = turn(s)
        at = np.flatnonzero(s)
        np.testing.assert_array_equal(np.flatnonzero(turns), at)
        np.testing.assert_array_equal(turns[at], 1 + np.arange(len(at)) // 7)
        assert n == 1 + -(-len(at) // 7)


@pytest.mark.usefixtures("on_gpu")
def test_products_are_sums_over_the_synapses_of_those_that_fired():
    s, post, pre = fired(3, N_PRE), fired(4, N_POST), fired(4, N_PRE)
    d, ring = RNG.integers(1, LONGEST + 1, EDGES), RNG.normal(size=(LONGEST, N_POST))
    ring = ring.astype(np.float32)

    @jax.jit
    def run(w, s, post, pre):
        apply = lambda s: WIRING.apply(w, s)  # noqa: E731
        later = WIRING.scheduled(w, s[0], jnp.asarray(d), jnp.asarray(ring), jnp.asarray(5))
        batch = jax.vmap(WIRING.outer)(jnp.stack([post, 2 * post]), jnp.stack([pre, pre]))
        return apply(s[0]), jax.vmap(apply)(s), WIRING.outer(post, pre), batch, later

    one, each, change, batch, (due, left) = run(W, s, post, pre)
    expected = np.zeros((3, N_POST))
    np.add.at(expected, (slice(None), POST), np.asarray(W, float) * np.asarray(s)[:, PRE])
    np.testing.assert_allclose(each, expected, atol=ROUNDING * np.abs(expected).max())
    np.testing.assert_allclose(one, expected[0], atol=ROUNDING * np.abs(expected).max())
    expected = (np.asarray(post, float)[:, POST] * np.asarray(pre)[:, PRE]).sum(0)
    np.testing.assert_allclose(change, expected, rtol=ROUNDING)
    np.testing.assert_allclose(batch, [expected, 2 * expected], rtol=ROUNDING)
    expected = ring.astype(float)
    np.add.at(expected, ((5 + d - 1) % LONGEST, POST), np.asarray(W) * np.asarray(s)[0, PRE])
    np.testing.assert_allclose(due, expected[5], atol=20 * ROUNDING)
    expected[5] = 0
    np.testing.assert_allclose(left, expected, atol=20 * ROUNDING)


class Soft(eqx.Module):
    """A factor that falls towards 2."""

    most: jax.Array

    def __call__(self, w):
        return self.most - w


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("scale", [None, Soft(jnp.asarray(2.0))])
def test_visits_change_what_fired_within_bounds(scale):
    s, y, z, x = fired(N_PRE), fired(N_POST, part=1), fired(N_POST), fired(N_PRE, part=1)
    low, high = -0.2, np.linspace(0.1, 1.5, N_PRE).astype(np.float32)  # one a sender
    run = jax.jit(lambda w, *ends: WIRING.visited(w, (Visit(s, y, scale), Visit(z, x)), *ends))
    found = run(W, jnp.asarray(low), jnp.asarray(high))
    held = lambda w, fired, dw: np.where(fired, np.clip(w + dw, low, high[PRE]), w)  # noqa: E731
    s, y, z, x, w = (np.asarray(a, float) for a in (s, y, z, x, W))
    factor = 1 if scale is None else 2 - w
    w = held(w, s[PRE] != 0, s[PRE] * y[POST] * factor)
    w = held(w, z[POST] != 0, z[POST] * x[PRE])
    np.testing.assert_allclose(found, w, atol=2 * ROUNDING)


@pytest.mark.usefixtures("on_gpu")
def test_what_names_no_neuron_ends_in_an_error():
    def put(wiring, index, start):
        return eqx.tree_at(lambda c: (c.index, c.start), wiring, (index, start))

    small = nj.FanOut([1, 2, 0, 1], [0, 2, 4], 3, 2)
    reached = jax.jit(lambda *lists: put(small, *lists).apply(jnp.ones(4), jnp.ones(2)))
    index, start = jnp.array([1, 2, 0, 1]), jnp.array([0, 2, 4])
    np.testing.assert_array_equal(reached(index, start), [1, 2, 1])
    for far in (3, 2**31 - 1, -1, -(2**31)):
        with pytest.raises(at_run_time, match="index must name one of 3 neurons, 0"):
            done(reached(index.at[3].set(far), start))
    for no in ([0, -3, 4], [0, 9, 4], [-1, 2, 4], [3, 3, 5]):
        with pytest.raises(at_run_time, match="start must rise from 0 to 4, the sy"):
            done(reached(index, jnp.array(no)))
    with pytest.raises(at_run_time, match="longest must be"):
        done(reached(index, jnp.array([0, 3, 4])))


def test_a_program_for_a_gpu_has_one_loop_and_no_spike_alone(monkeypatch):
    monkeypatch.setattr(events, "refused", lambda x, *_: x)  # calls back to a device that is there
    wiring = dataclasses.replace(WIRING, columns=None)
    one = lambda w, s: wiring.apply(w, s)  # noqa: E731
    batch = lambda w, s: jax.vmap(one, (None, 0))(w, s)  # noqa: E731
    loops = {}
    for platform in ("cuda", "tpu"):
        for name, run, shape in (("one", one, (N_PRE,)), ("batch", batch, (3, N_PRE))):
            traced = jax.jit(run).trace(W, jnp.zeros(shape))
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            loops[platform, name] = text.count("stablehlo.while")
    assert loops["cuda", "one"] == loops["cuda", "batch"] == 1
    assert loops["tpu", "one"] == 2


@pytest.mark.slow
def test_the_triton_kernel_sums_the_same_and_counts_receivers_that_are_none():
    wiring = nj.bernoulli(jax.random.key(0), 100, 200, 0.7)  # rows longer than the lanes
    w, s = jax.random.normal(jax.random.key(1), wiring.shape), fired(100)
    run = jax.jit(summed(200, interpret=True))
    current, none = run(wiring.index, wiring.start, w, s)
    np.testing.assert_allclose(current, wiring.matrix(w) @ s, atol=30 * ROUNDING)
    assert none == 0
    bytes_each = jnp.stack([(wiring.index.astype(int) >> k) & 255 for k in (0, 8, 16)], 1)
    in_bytes, _ = run(bytes_each.astype(jnp.uint8), wiring.start, w, s)
    np.testing.assert_array_equal(in_bytes, current)
    at = wiring.start[np.flatnonzero(s)[0]]
    assert run(wiring.index.at[at].set(200), wiring.start, w, s)[1] > 0  # of two bytes
    if jax.__version_info__ <= (0, 10, 2):  # later ones compile it, for which there must be a GPU
        for index in (wiring.index, bytes_each.astype(jnp.uint8)):
            traced = jax.jit(summed(200)).trace(index, wiring.start, w, s)
            assert "xla.gpu.triton" in traced.lower(lowering_platforms=("cuda",)).as_text()
