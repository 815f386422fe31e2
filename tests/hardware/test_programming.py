"""Policies: what reaches the devices is what was asked for, and what it cost is counted."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.devices import Device, exponential, linear, querlioz, soft_bounds
from hardware.programming import (
    Bidirectional,
    MixedPrecision,
    OneSide,
    Pair,
    Single,
    Spent,
    Train,
    Unidirectional,
    WriteVerify,
    refreshed,
)

G_MIN, G_MAX, N = 1e-6, 1.1e-5, 64
SPAN, STEP = G_MAX - G_MIN, (G_MAX - G_MIN) / N
LINEAR = Device(linear(N), G_min=G_MIN, G_max=G_MAX, v_pulse=2.0, t_pulse=1e-6)
TRAIN = Train(N)


def pair(u_plus, u_minus, device=LINEAR):
    """Pairs [1, d] at given places in their window."""
    at = lambda u: device.init(G_MIN + SPAN * jnp.atleast_2d(jnp.asarray(u, float)))  # noqa: E731
    plus, minus = at(u_plus), at(u_minus)
    spent = Spent(jnp.zeros(()), jnp.zeros(()), jnp.zeros(plus.G.shape, jnp.int32))
    return Pair(device, device, plus, minus, spent, jnp.zeros(()))


def u(pair):
    """Places of both sides in their window."""
    return tuple((np.asarray(c.G[0], float) - G_MIN) / SPAN for c in pair[2:4])


@eqx.filter_jit
def program(policy, pair, dG, key=None):
    memory = policy.init(dG)
    return policy(pair, memory, dG, key=key)[0]


refresh = eqx.filter_jit(refreshed)

POLICIES = {
    "bidirectional": Bidirectional(TRAIN),
    "one side": OneSide(TRAIN),
    "unidirectional": Unidirectional(TRAIN),
    "write-verify": WriteVerify(OneSide(TRAIN)),
    "mixed precision": MixedPrecision(OneSide(TRAIN), N),
}


@pytest.mark.parametrize("name", POLICIES)
@given(steps=st.integers(-5, 5))
def test_whole_steps_are_made_exactly_on_linear_devices(name, steps):
    start = pair([0.5, 0.4], [0.4, 0.5])
    dG = jnp.full((1, 2), 2 * steps * STEP * (1 + 1e-5))  # the least above a whole number
    after = program(POLICIES[name], start, dG)
    np.testing.assert_allclose(after.dG, start.dG + dG, atol=0.01 * STEP)


def test_each_policy_moves_the_devices_that_it_says():
    start, dG = pair([0.5, 0.5], [0.25, 0.25]), 4 * STEP * jnp.array([[1.0, -1.0]])
    moved = {
        name: np.rint(np.subtract(u(program(policy, start, dG)), u(start)) * N)
        for name, policy in POLICIES.items()
    }
    np.testing.assert_array_equal(moved["bidirectional"], [[2, -2], [-2, 2]])
    np.testing.assert_array_equal(moved["one side"], [[4, -4], [0, 0]])
    np.testing.assert_array_equal(moved["unidirectional"], [[4, 0], [0, 4]])


@pytest.mark.parametrize(
    ("before", "after"),
    [((0.8, 0.4), (0.4, 0.0)), ((0.6, 0.3), (0.6, 0.3)), ((0.3, 0.8), (0.0, 0.5))],
)
def test_refresh_resets_both_sides_and_writes_their_difference_back(before, after):
    fine = Device(linear(1000), G_min=G_MIN, G_max=G_MAX)
    new = refresh(pair(*before, fine), jnp.array(0.75), jnp.array(0.25))
    np.testing.assert_allclose(np.ravel(u(new)), after, atol=0.5 / 1000)
    assert int(new.spent.n_refresh.sum()) == (before != after)


@pytest.mark.parametrize(
    "device",
    [LINEAR, *(Device(r, G_min=G_MIN, G_max=G_MAX)
               for r in (exponential(64, 20.0), querlioz(64, 3.0)))],
)  # fmt: skip
@given(seed=st.integers(0, 1000))
def test_a_noiseless_refresh_leaves_the_weight_within_half_a_level(device, seed):
    places = jax.random.uniform(jax.random.key(seed), (2, 200), minval=0.2)
    start = pair(*places, device)
    new = refresh(start, jnp.array(0.75), jnp.array(0.25))
    n = device.pulses_to(jnp.abs(start.dG) + G_MIN)
    low = device.init(jnp.full_like(start.dG, G_MIN))
    steps = [device.pulse(low, jnp.maximum(n + k, 0), 0 * n).G for k in (-1, 0, 1)]
    half = np.maximum(steps[2] - steps[1], steps[1] - steps[0]) / 2
    assert (np.abs(new.dG - start.dG) <= half * 1.001).all()
    worn = (np.maximum(*places) > 0.75) & (np.minimum(*places) > 0.25)
    np.testing.assert_array_equal(new.spent.n_refresh[0], worn)


def test_single_pulses_are_right_on_the_average():
    start, n = pair([0.5] * 10_000, [0.5] * 10_000), 10_000
    for part in (0.1, 0.7):
        dG = jnp.full((1, n), part * STEP)
        moved = (program(OneSide(Single(N)), start, dG, jax.random.key(3)).dG - start.dG) / STEP
        assert set(np.rint(np.ravel(moved))) == {0.0, 1.0}
        sigma = np.sqrt(part * (1 - part) / n)
        assert np.mean(moved) == pytest.approx(part, abs=4 * sigma + 1e-4)


def test_single_pulses_need_a_key():
    with pytest.raises(ValueError, match="key must be given"):
        OneSide(Single(N))(pair(0.5, 0.5), None, jnp.full((1, 1), STEP))


def test_adaptive_trains_follow_the_slope_of_the_device():
    device = Device(soft_bounds(N), G_min=G_MIN, G_max=G_MAX)
    start = pair([0.1, 0.9], [0.0, 0.0], device)
    dG = jnp.full((1, 2), STEP)
    plain = program(OneSide(Train(N)), start, dG)
    adaptive = program(OneSide(Train(N, adaptive=True)), start, dG)
    assert np.ravel(plain.cells_plus.n_pulses).tolist() == [1, 1]
    # A step is (1 - u) / N there: 1 / .1 = 10 pulses, of which the later are smaller.
    assert np.ravel(adaptive.cells_plus.n_pulses).tolist() == [1, 10]
    missed = [np.abs(p.dG - start.dG - dG)[0, 1] for p in (plain, adaptive)]
    assert missed[1] < 0.1 * missed[0]


def test_at_most_the_longest_train_is_sent():
    after = program(OneSide(Train(N, longest=5)), pair(0.1, 0.1), jnp.full((1, 1), 40 * STEP))
    assert after.cells_plus.n_pulses.item() == 5


def test_write_verify_gets_there_where_one_try_does_not():
    device = Device(soft_bounds(N), G_min=G_MIN, G_max=G_MAX)
    start, dG = pair([0.3, 0.6], [0.0, 0.0], device), 0.2 * SPAN * jnp.array([[1.0, -1.0]])
    once = program(OneSide(TRAIN), start, dG)
    verified = program(WriteVerify(OneSide(TRAIN), rounds=8), start, dG)
    missed = lambda p: np.abs(p.dG - start.dG - dG) / STEP  # noqa: E731
    assert missed(once).max() > 2
    assert missed(verified).max() <= 0.75  # half a nominal step is asked for no more


def test_mixed_precision_loses_nothing_below_a_step():
    policy, state = MixedPrecision(OneSide(TRAIN), N), pair([0.5] * 3, [0.5] * 3)
    small = STEP * jnp.array([[0.3, -0.26, 0.01]])
    memory, start = policy.init(small), state.dG
    for n in range(1, 41):
        state, memory = policy(state, memory, small)
        np.testing.assert_allclose(state.dG - start + memory[0], n * small, atol=1e-3 * STEP)
        assert (jnp.abs(memory[0]) < STEP * 1.001).all()


def test_energy_and_time_are_those_of_the_pulses():
    start = pair([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
    dG = STEP * jnp.array([[3.0, 1.0], [0.0, -2.0]])
    after = program(OneSide(TRAIN), start, dG)
    n = np.array([[3, 1], [0, 2]])
    half = (np.asarray(start.cells_plus.G, float) + np.asarray(after.cells_plus.G, float)) / 2
    assert after.spent.energy == pytest.approx((n * 1e-6 * 2.0**2 * half).sum(), rel=1e-5)
    assert after.spent.time == pytest.approx((3 + 2) * 1e-6, rel=1e-5)  # row by row
    np.testing.assert_array_equal(after.cells_plus.n_pulses, n)


@pytest.mark.parametrize("wrapped", [lambda policy: policy, lambda p: MixedPrecision(p, N)])
def test_worn_pairs_are_looked_for_once_in_so_many_calls(wrapped):
    policy, state = wrapped(Unidirectional(TRAIN, every=3)), pair(0.8, 0.4)
    nothing, memory = jnp.zeros((1, 1)), wrapped(Unidirectional(TRAIN)).init(jnp.zeros((1, 1)))
    refreshes = []
    for _ in range(6):
        worn = pair(0.8, 0.4)._replace(spent=state.spent)  # worn anew at every call
        state, memory = policy(worn, memory, nothing)
        refreshes.append(state.spent.n_refresh.item())
    assert refreshes == [0, 0, 1, 1, 1, 2]


def test_a_refresh_writes_no_longer_than_it_may():
    after = refresh(pair(0.8, 0.4), jnp.array(0.75), jnp.array(0.25), 10)
    np.testing.assert_allclose(np.ravel(u(after)), (10 / N, 0), atol=1e-6)


def test_a_refresh_is_paid_for():
    after = refresh(pair(0.8, 0.4), jnp.array(0.75), jnp.array(0.25))
    # One reset each, then round(.4 N) = 26 pulses up on the larger side.
    assert after.cells_plus.n_pulses.item() == 27
    assert after.cells_minus.n_pulses.item() == 1
    g = lambda u: G_MIN + SPAN * u  # noqa: E731
    reset = (g(0.8) + G_MIN) / 2 + (g(0.4) + G_MIN) / 2
    written = 26 * (G_MIN + g(26 / N)) / 2
    assert after.spent.energy == pytest.approx(4e-6 * (reset + written), rel=1e-5)
    assert after.spent.time == pytest.approx((1 + 26) * 1e-6, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Unidirectional(TRAIN, 0.2, 0.6), "upper must be above lower; got 0.2 and 0.6"),
        (lambda: Unidirectional(TRAIN, 1.2), r"upper must lie in \[0, 1\]; got 1.2"),
        (lambda: Train(0), "n_pulses must be finite and > 0 pulses; got 0"),
        (lambda: Train(8, longest=-1), "longest must be finite and > 0 pulses"),
        (partial(WriteVerify, OneSide(TRAIN), rounds=0), "rounds must be a whole number >= 1"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
