"""Rewiring at fixed fan-in: what goes, what comes, by which law; numbers and devices alike."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hardware
import neurojax as nj
from neurojax.weights import Ideal

KEY = jax.random.key(0)
NEAR = nj.Local2D((1, 6, 4), 1, kernel=3, padding="same")  # 24 -> 24


def pairs(wiring):
    """Which pairs are connected, [post, pre]."""
    return np.asarray(wiring.matrix(jnp.ones(wiring.shape))) > 0


@cache
def fan(n=24, k=6):
    return nj.fan_in(KEY, n, n, k / (n - 1), autapses=False)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([(1, False), (3, True)]), st.integers(0, 2**31))
def test_the_least_used_go_and_as_many_come_that_were_not_there(how, seed):
    n, autapses = how
    key = jax.random.key(seed)
    use = jax.random.uniform(jax.random.fold_in(key, 1), fan().shape)
    moved = nj.rewire(key, fan(), use, n, autapses=autapses)
    new, before, after = np.asarray(moved.new), np.asarray(fan().index), moved.wiring.index
    order = np.argsort(np.asarray(use), 1)
    np.testing.assert_array_equal(np.take_along_axis(new, order, 1), [np.arange(6) < n] * 24)
    np.testing.assert_array_equal(np.asarray(after)[~new], before[~new])  # each in its own place
    was, now = pairs(fan()), pairs(moved.wiring)
    np.testing.assert_array_equal(now.sum(1), 6)  # so none stands twice
    np.testing.assert_array_equal((now & ~was).sum(1), n)
    assert autapses or not now.diagonal().any()
    again = nj.rewire(key, fan(), use, n, autapses=autapses)
    np.testing.assert_array_equal(again.wiring.index, after)


@pytest.mark.parametrize(
    "beside",
    [
        NEAR,
        nj.locally_dense(KEY, 24, radius=4, p_rewire=0.2)[0],
        (nj.FanIn((np.arange(24)[:, None] + [1, 2, 3]) % 24, 24), NEAR),
    ],
    ids=["window", "band", "several"],
)
def test_what_lies_beside_is_not_drawn_and_all_else_alike(beside):
    """Every other partner is as likely; where all that are left are asked for, all come."""
    wirings = beside if isinstance(beside, tuple) else (beside,)
    taken = sum(pairs(x) for x in wirings) > 0
    free = ~taken & ~np.eye(24, dtype=bool)
    own = nj.FanIn([np.flatnonzero(row)[:2] for row in free], 24)
    free &= ~pairs(own)
    one = lambda key: nj.rewire(  # noqa: E731
        key, own, jnp.zeros(own.shape), 1, autapses=False, beside=beside
    )
    moved = jax.jit(jax.vmap(one))(jax.random.split(KEY, 300))
    index = np.asarray(moved.wiring.index)
    times = np.zeros((24, 24))
    rows = np.broadcast_to(np.arange(24)[:, None], index.shape[1:])
    for each, new in zip(index, np.asarray(moved.new), strict=True):
        times[rows[new], each[new]] += 1
    assert not times[~free].any()
    p = free / free.sum(1, keepdims=True)
    assert (np.abs(times - 300 * p) <= 4.5 * np.sqrt(300 * p * (1 - p))).all()
    # equal use: either of the two goes as often, 300 coins a neuron
    assert np.abs(np.asarray(moved.new)[..., 0].mean() - 0.5) < 4.5 * 0.5 / np.sqrt(300 * 24)


def test_jit_and_vmap_draw_what_a_loop_draws():
    keys, use = jax.random.split(KEY, 3), jax.random.uniform(KEY, (3, *fan().shape))
    one = lambda key, use: nj.rewire(key, fan(), use, 2, autapses=False, beside=NEAR)  # noqa: E731
    many = jax.jit(jax.vmap(one))(keys, use)
    for i in range(3):
        alone = one(keys[i], use[i])
        np.testing.assert_array_equal(many.wiring.index[i], alone.wiring.index)
        np.testing.assert_array_equal(many.new[i], alone.new)


@pytest.mark.parametrize("shape", [(40,), (5, 8)])
def test_partners_come_by_the_law_of_distance(shape):
    """First new partners over many keys: in proportion to the profile, of those not there."""
    own = nj.FanIn((np.arange(40)[:, None] + [3, 17]) % 40, 40)
    use = jnp.array([[0.0, 1.0]]).repeat(40, 0)  # 17 further on stays
    profile = nj.exponential_profile(1.5)
    one = lambda key: nj.rewire(  # noqa: E731
        key, own, use, 1, autapses=False, profile=profile, shape=shape
    )
    index = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, 60)).wiring.index[..., 0])
    ny, nx = (1, *shape)[-2:]
    y, x = np.divmod(np.arange(40), nx)
    gap = lambda a, n: np.minimum(np.abs(a[:, None] - a), n - np.abs(a[:, None] - a))  # noqa: E731
    weight = np.exp(-np.hypot(gap(y, ny), gap(x, nx)) / 1.5)
    weight[np.eye(40, dtype=bool) | pairs(own)] = 0
    p = weight / weight.sum(1, keepdims=True)
    times = np.stack([(index == j).sum(0) for j in range(40)], 1)
    assert not times[p == 0].any()
    found, expected = [], []
    for d in np.unique(gap(x, nx)):  # columns apart: summed over receivers
        far = gap(x, nx) == d
        found.append(times[far].sum())
        expected.append(60 * p[far].sum())
    # sums of 2,400 draws, 4 standard errors
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(2400 / 4))
    assert np.abs(np.subtract(found, expected)[:4]).max() < 4 * np.sqrt(np.max(expected))


def test_what_is_inf_stays_and_the_last_partners_are_found():
    own = nj.FanIn((np.arange(6)[:, None] + [1, 2]) % 6, 6)
    use = jnp.array([[jnp.inf, 9.0]] * 6)
    moved = nj.rewire(KEY, own, use, 1)
    np.testing.assert_array_equal(moved.new, [[False, True]] * 6)
    both = nj.rewire(KEY, own, jnp.zeros((6, 2)), 2, autapses=False, beside=nj.FanIn(
        (np.arange(6)[:, None] + 3) % 6, 6
    ))  # fmt: skip
    assert pairs(both.wiring)[np.arange(6)[:, None], (np.arange(6)[:, None] + [4, 5]) % 6].all()


def test_numbers_that_move_start_at_0_or_at_their_bound():
    w = jnp.outer(jnp.where(jnp.arange(24) % 2, 1.0, -1.0), jnp.where(jnp.arange(6) < 2, 0.1, 1.0))
    held = nj.ideal(keep_sign=True)(w, fan(), KEY)
    moved, new = nj.rewired(KEY, held, 2, autapses=False)
    np.testing.assert_array_equal(new, np.broadcast_to(np.arange(6) < 2, w.shape))
    np.testing.assert_array_equal(moved.w, jnp.where(new, 0.0, w))
    assert isinstance(moved, Ideal)
    np.testing.assert_array_equal(
        moved.apply(jnp.ones(24)), moved.connectivity.apply(moved.w, jnp.ones(24))
    )
    low = nj.ideal(bounds=(0.05, 2.0))(jnp.abs(w), fan(), KEY)
    np.testing.assert_allclose(nj.rewired(KEY, low, 2)[0].w[:, :2], 0.05)
    by_use, which = nj.rewired(KEY, held, 1, use=-jnp.abs(w))
    assert not np.asarray(which)[:, :2].any()
    assert (jnp.abs(by_use.w)[:, :2] > 0).all()


@pytest.mark.parametrize(
    ("kind", "start", "each"), [
        ("differential", "low", 2), ("differential", "middle", 2 + 2 * 32), ("reference", "low", 33)
    ],
)  # fmt: skip
def test_devices_that_move_are_reset_by_counted_pulses(kind, start, each):
    """64 states in 64 pulses: 32 to the middle; all others keep their conductance to the bit."""
    device = hardware.Device(hardware.linear(64), t_pulse=1e-6)
    policy = hardware.MixedPrecision(hardware.OneSide(hardware.Train(64)), 64)
    make = hardware.crossbar(device, policy, 1.0, kind=kind, start=start)
    w = jax.random.uniform(KEY, fan().shape, minval=-1.0)
    held = make(w, fan(), KEY)
    held = held.program(jnp.full(w.shape, 1e-3))  # below a step: the policy remembers it
    assert all((jnp.abs(x) > 0).any() for x in jax.tree.leaves(held.memory) if x.shape == w.shape)
    moved, new = nj.rewired(KEY, held, 2, autapses=False)
    np.testing.assert_array_equal(moved.n_pulses - held.n_pulses, each * np.asarray(new))
    np.testing.assert_array_equal(moved.w[~new], held.w[~new])
    np.testing.assert_allclose(moved.w[new], 0.0, atol=1e-6)
    assert new.sum() == 2 * 24
    for x in jax.tree.leaves(moved.memory):
        assert x.shape != w.shape or not x[new].any()
    spent = moved.pair.spent
    assert float(spent.energy) > float(held.pair.spent.energy)
    # a row at a time, its devices at once: 24 rows of one reset, and then of 32 pulses
    rows = 24 * (1 + (each - 1 if kind == "reference" else (each - 2) // 2)) * 1e-6
    assert float(spent.time) - float(held.pair.spent.time) == pytest.approx(rows, rel=1e-4)
    assert not np.asarray(spent.n_refresh).any()


def test_a_rewired_network_computes_with_its_new_wiring():
    """Simulated and taught: as the dense network of the same matrix."""
    layer = nj.Layer(24, nj.LIF(9.5, 3.0), rule=nj.ThreeFactor(window=nj.triangle(0.5)))
    loop = nj.Recurrence("grid", fan_in=8, delays=(1, 2), gain=0.5)
    net = nj.structured(KEY, 5, [layer], 3, recurrence=loop, population=1)
    weights = net.init_weights(KEY)
    for name, other in (("h1->h1", "h1->h1 after 2"), ("h1->h1 after 2", "h1->h1")):
        weights[name], new = nj.rewired(
            KEY, weights[name], 2, autapses=False, beside=weights[other].connectivity
        )
        w = jnp.where(new, 0.2, weights[name].w)
        weights[name] = replace(weights[name], w=w)
    both = pairs(weights["h1->h1"].connectivity) & pairs(weights["h1->h1 after 2"].connectivity)
    assert not both.any()
    x, y = 2 * jax.random.uniform(KEY, (2, 5)), jnp.array([0, 2])

    dense = {}
    for n, held in weights.items():
        c = held.connectivity
        whole = nj.Dense(c.n_pre, c.n_post, jnp.asarray(pairs(c)))
        dense[n] = replace(net.projections[n], connectivity=whole, w=c.matrix(held.w))
    other = nj.Network(net.layers, dense)
    found = []
    for each, held in ((net, weights), (other, other.init_weights(KEY))):
        system = nj.wta_broadcast.system(KEY, each, n_steps=8, start=2)
        found.append(nj.wta_broadcast.deltas(system, held, system.rest(), x, y))
    (dw, seen), (dw_2, seen_2) = found
    assert float(seen.rates["h1"].mean()) > 0.01
    np.testing.assert_array_equal(seen.rates["h1"], seen_2.rates["h1"])
    for n in ("h1->h1", "h1->h1 after 2"):
        got = weights[n].connectivity.matrix(dw[n])
        np.testing.assert_allclose(got, dw_2[n], atol=2e-5 * np.abs(dw_2[n]).max())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n=0), "n must be"),
        (dict(n=7), r"n must be in \[1, 6\], the fan-in; got 7"),
        (dict(n=6, beside=fan(24, 15)), "n must be at most 2, of 24 partners"),
        (dict(use=jnp.ones((24, 5))), r"use must have shape \(24, 6\), one a synapse"),
        (dict(use=jnp.full((24, 6), jnp.nan)), "use must be no NaN"),
        (dict(use=jnp.full((24, 6), jnp.inf)), "below inf for n = 1 synapses of each neuron"),
        (dict(fan=nj.Dense(24, 24)), "fan"),
        (dict(beside=nj.Dense(24, 24)), "beside"),
        (dict(beside=nj.one_to_one(25)), r"beside must connect the same 24 and 24; got \(25, 25\)"),
        (dict(fan=nj.FanIn([[0, 1]], 9), use=jnp.ones((1, 2)), autapses=False),
         "autapses=False is for one population; got 9 and 1 neurons"),
        (dict(shape=(24,)), "profile and shape must be given together"),
        (dict(shape=(5, 5), profile=nj.exponential_profile(1.0)), "shape must hold the 24 neurons"),
        (dict(key=3), "key"),
    ],
)  # fmt: skip
def test_refusals(change, message):
    asked = dict(key=KEY, fan=fan(), use=jnp.ones((24, 6)), n=1, autapses=False) | change
    args = [asked.pop(name) for name in ("key", "fan", "use", "n")]
    with pytest.raises((ValueError, TypeError), match=message):
        nj.rewire(*args, **asked)


def test_weights_that_cannot_move_are_refused():
    levels = nj.levels(0.1)(jnp.ones(fan().shape), fan(), KEY)
    with pytest.raises(TypeError, match="weights must"):
        nj.rewired(KEY, levels, 1)
