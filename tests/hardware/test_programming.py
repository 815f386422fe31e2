"""Policies: what reaches the devices is what was asked for, and what it cost is counted."""

import copy
import pickle
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hardware as hw
from hardware._clock import exact
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
LINEAR = Device(linear(N), G_min=G_MIN, G_max=G_MAX, v_pulse=3.0, t_pulse=1e-6)
TRAIN = Train(N)


def pair(u_plus, u_minus, device=LINEAR, t=0.0):
    """Pairs [1, d] at given places in their window, made at time `t`."""
    at = lambda u: device.init(G_MIN + SPAN * jnp.atleast_2d(jnp.asarray(u, float)))  # noqa: E731
    plus, minus = at(u_plus), at(u_minus)
    return Pair(device, device, plus, minus, Spent.none(plus.G.shape), exact(t, float))


def u(pair):
    """Places of both sides in their window."""
    return tuple((np.asarray(c.G[0], float) - G_MIN) / SPAN for c in pair[2:4])


@eqx.filter_jit
def program(policy, pair, dG, key=None):
    memory = policy.init(dG)
    return policy(pair, memory, dG, key=key)[0]


refresh = eqx.filter_jit(refreshed)
asked_for = eqx.filter_jit(lambda policy, pair, memory, dG: policy(pair, memory, dG))

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


@pytest.mark.slow
@pytest.mark.parametrize(
    "device",
    [LINEAR, *(Device(r, G_min=G_MIN, G_max=G_MAX)
               for r in (exponential(64, 20.0), querlioz(64, 3.0)))],
)  # fmt: skip
def test_a_noiseless_refresh_leaves_the_weight_within_half_a_level(device):
    places = jax.random.uniform(jax.random.key(0), (2, 4000), minval=0.2)
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


def test_adaptive_single_pulses_come_as_often_as_their_step_is_small():
    n = 10_000
    device = Device(soft_bounds(N), G_min=G_MIN, G_max=G_MAX)
    start, dG = pair([0.75] * n, [0.0] * n, device), jnp.full((1, n), 0.1 * STEP)
    for sign, part in ((1, 0.1 / 0.25), (-1, 0.1 / 0.75)):  # a step is (1 - u) / N up, u / N down
        after = program(OneSide(Single(N, adaptive=True)), start, sign * dG, jax.random.key(4))
        sigma = np.sqrt(part * (1 - part) / n)
        assert np.mean(after.cells_plus.n_pulses) == pytest.approx(part, abs=4 * sigma)


def test_a_device_at_its_end_is_asked_for_nothing_more():
    start, dG = pair([1.0, 0.0], [0.0, 0.0]), STEP * jnp.array([[3.0, -3.0]])
    after = program(OneSide(Train(N, adaptive=True)), start, dG)
    np.testing.assert_array_equal(after.cells_plus.n_pulses, [[0, 0]])
    assert program(OneSide(TRAIN), start, dG).cells_plus.n_pulses.tolist() == [[3, 3]]


def test_devices_that_take_any_number_of_pulses_get_it():
    device = Device(linear(N), G_min=G_MIN, G_max=G_MAX, discrete=False)
    dG = STEP * jnp.array([[2.25, -0.5]])
    after = program(OneSide(TRAIN), pair([0.5, 0.5], [0.0, 0.0], device), dG)
    np.testing.assert_allclose(u(after)[0] - 0.5, np.ravel(dG) / SPAN, atol=1e-6)


# The other side has half the range, from higher up, and pulses that take three times as long.
OTHER = Device(linear(N), G_min=2e-6, G_max=7e-6, v_pulse=1.0, t_pulse=3e-6)


def unequal(u_plus, u_minus):
    """Pairs [1, d] whose sides are other devices."""
    here = pair(u_plus, u_minus)
    G = 2e-6 + 5e-6 * jnp.atleast_2d(jnp.asarray(u_minus, float))
    return here._replace(minus=OTHER, cells_minus=OTHER.init(G))


def test_each_side_is_pulsed_by_its_own_step_voltage_and_time():
    start, dG = unequal([0.25, 0.25], [0.25, 0.25]), 8 * STEP * jnp.array([[1.001, -1.001]])
    both = program(Bidirectional(TRAIN), start, dG)  # half of the range: a step is half of ours
    np.testing.assert_array_equal(both.cells_plus.n_pulses, [[4, 4]])
    np.testing.assert_array_equal(both.cells_minus.n_pulses, [[8, 8]])
    up = program(Unidirectional(TRAIN), start, dG)
    np.testing.assert_array_equal(up.cells_plus.n_pulses, [[8, 0]])
    np.testing.assert_array_equal(up.cells_minus.n_pulses, [[0, 16]])
    assert up.spent.time == pytest.approx(16 * 3e-6, rel=1e-5)
    energy = 0.0
    for before, after, volt, width in (
        (start.cells_plus, up.cells_plus, 3.0, 1e-6), (start.cells_minus, up.cells_minus, 1.0, 3e-6)
    ):  # fmt: skip
        mean = (np.asarray(before.G, float) + np.asarray(after.G, float)) / 2
        energy += volt**2 * width * (np.asarray(after.n_pulses) * mean).sum()
    assert up.spent.energy == pytest.approx(energy, rel=1e-5)


def test_each_side_is_refreshed_in_its_own_window():
    start = unequal([0.8, 0.5, 0.5], [0.3, 0.8, 0.2])  # the last is not worn
    new = refresh(start, jnp.array(0.75), jnp.array(0.25))
    np.testing.assert_array_equal(new.spent.n_refresh, [[1, 1, 0]])
    np.testing.assert_allclose(new.cells_minus.G[0, 0], 2e-6, rtol=1e-5)  # written on the other
    left = (np.asarray(new.dG - start.dG) / STEP)[0]
    # with the side reset to its own G_min, what it began at is not lost but moved
    assert np.abs(left[:2]).max() <= 0.5 + 1e-3 or new.cells_plus.G[0, 0] == np.float32(G_MAX)
    assert left[2] == 0


def test_worn_is_what_lies_above_the_limits_and_not_on_them():
    device = Device(linear(8), G_min=0.0, G_max=1.0)
    at = lambda x: device.init(jnp.array([x]))  # noqa: E731
    plus, minus = at([0.75, 0.875, 0.875]), at([0.5, 0.25, 0.5])
    start = Pair(device, device, plus, minus, Spent.none((1, 3)), exact(0.0, float))
    new = refresh(start, jnp.array(0.75), jnp.array(0.25))
    np.testing.assert_array_equal(new.spent.n_refresh, [[0, 0, 1]])
    for cells in (new.cells_plus, new.cells_minus):
        np.testing.assert_array_equal(cells.n_pulses[:, :2], [[0, 0]])
    through = program(Unidirectional(TRAIN), start, jnp.zeros((1, 3)))
    np.testing.assert_array_equal(through.spent.n_refresh, [[0, 0, 1]])
    assert program(Unidirectional(TRAIN), pair(0.7, 0.3), jnp.zeros((1, 1))).spent.n_refresh == 0


def test_a_refresh_draws_noise_of_its_own():
    device = Device(linear(N), G_min=G_MIN, G_max=G_MAX, sigma_c2c=0.01)
    start, none = pair([0.8] * 4, [0.4] * 4, device), jnp.zeros((1, 4))
    silent = program(Unidirectional(TRAIN), start, none)
    noisy = program(Unidirectional(TRAIN), start, none, jax.random.key(8))
    np.testing.assert_array_equal(silent.spent.n_refresh, noisy.spent.n_refresh)
    assert len(np.unique(np.asarray(noisy.cells_plus.G - silent.cells_plus.G))) == 4


def test_a_policy_refuses_a_number_for_a_key(untyped):
    for policy in POLICIES.values():
        dG = jnp.zeros((1, 1))
        with pytest.raises((TypeError, ValueError), match="key"):
            policy(pair(0.5, 0.5), policy.init(dG), dG, key=3)


@pytest.mark.parametrize(
    ("make", "wrapped"),
    [
        (Bidirectional, lambda policy: policy),
        (Unidirectional, WriteVerify),
        (OneSide, lambda policy: MixedPrecision(policy, N)),
    ],
)
def test_keys_reach_the_coder_through_every_policy(make, wrapped):
    start, dG = pair([0.5] * 8, [0.5] * 8), jnp.full((1, 8), 1.5 * STEP)
    after = program(wrapped(make(Single(N))), start, dG, jax.random.key(9))
    assert after.cells_plus.n_pulses.sum() > 0
    if wrapped is WriteVerify:  # each round draws anew
        assert np.abs(after.dG - start.dG - dG).max() < 1.01 * STEP


def test_write_verify_gets_there_where_one_try_does_not():
    device = Device(soft_bounds(N), G_min=G_MIN, G_max=G_MAX)
    start, dG = pair([0.3, 0.6], [0.0, 0.0], device), 0.2 * SPAN * jnp.array([[1.0, -1.0]])
    once = program(OneSide(TRAIN), start, dG)
    verified = program(WriteVerify(OneSide(TRAIN), rounds=8), start, dG)
    missed = lambda p: np.abs(p.dG - start.dG - dG) / STEP  # noqa: E731
    assert missed(once).max() > 2
    assert missed(verified).max() <= 0.75  # half a nominal step is asked for no more


def test_write_verify_reads_anew_and_with_noise_in_every_round():
    n, sigma = 4000, 0.05
    device = Device(linear(1000), G_min=G_MIN, G_max=G_MAX, sigma_read=sigma)
    start, none = pair([0.5] * n, [0.5] * n, device), jnp.zeros((1, n))
    policy = WriteVerify(OneSide(Train(1000, longest=1000)), rounds=2)
    after = program(policy, start, none, jax.random.key(5))
    # Each round takes back what it sees: the last one's noise of two devices is what is left.
    left = np.ravel(after.dG) / SPAN
    assert left.std() == pytest.approx(np.sqrt(2) * sigma, rel=4 / np.sqrt(2 * n))
    # Pulses: E|x| of the first noise, then of the difference between two noises.
    pulses = np.ravel(after.cells_plus.n_pulses) / 1000
    expected = (np.sqrt(2) + 2) * sigma * np.sqrt(2 / np.pi)
    assert pulses.mean() == pytest.approx(expected, rel=4 / np.sqrt(n))


def test_write_verify_reads_what_has_drifted():
    device = Device(linear(1000), G_min=G_MIN, G_max=G_MAX, nu=0.1, t_0=1.0)
    start = pair(0.5, 0.2, device)._replace(t=exact(100.0, float))
    steady = Device(linear(1000), G_min=G_MIN, G_max=G_MAX, nu=0.05, t_0=1.0)
    policy = WriteVerify(OneSide(Train(1000, longest=1000)), rounds=1)
    for minus in (device, steady):
        now = start._replace(minus=minus)
        after = program(policy, now, jnp.zeros((1, 1)))
        # what is missing is what both have lost by then, in steps of a thousandth of the range
        plus_lost = (1 - 100**-0.1) * np.asarray(start.cells_plus.G)
        minus_lost = (1 - 100 ** -float(minus.nu)) * np.asarray(start.cells_minus.G)
        lost = (plus_lost - minus_lost) / SPAN * 1000
        np.testing.assert_array_equal(after.cells_plus.n_pulses, np.rint(lost))
    assert np.rint(lost).item() == 160


def test_both_sides_draw_for_themselves_what_is_sent_and_its_noise():
    n = 4000
    device = Device(linear(N), G_min=G_MIN, G_max=G_MAX, sigma_c2c=0.05)
    start, dG = pair([0.5] * n, [0.5] * n, device), jnp.full((1, n), STEP)
    sent = program(Bidirectional(Single(N)), start, dG, jax.random.key(6))  # half a step each
    n_plus, n_minus = (np.ravel(c.n_pulses) for c in (sent.cells_plus, sent.cells_minus))
    assert n_plus.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(n))
    assert abs(np.corrcoef(n_plus, n_minus)[0, 1]) < 4 / np.sqrt(n)
    noisy = program(Bidirectional(TRAIN), start, 4 * dG, jax.random.key(6))
    noise = [place[:n] for place in u(noisy)]
    assert noise[0].std() == pytest.approx(0.05 * np.sqrt(2), rel=4 / np.sqrt(2 * n))
    assert abs(np.corrcoef(*noise)[0, 1]) < 4 / np.sqrt(n)


def test_mixed_precision_sends_whole_steps_alone():
    policy, state = MixedPrecision(OneSide(TRAIN), N), pair([0.5] * 4, [0.5] * 4)
    asked = STEP * jnp.array([[0.9, -0.9, 1.6, -1.6]])
    after, (owed, _) = asked_for(policy, state, policy.init(asked), asked)
    np.testing.assert_array_equal(np.ravel(after.cells_plus.n_pulses), [0, 0, 1, 1])
    np.testing.assert_allclose(np.ravel(owed) / STEP, [0.9, -0.9, 0.6, -0.6], atol=1e-5)


def test_a_step_of_mixed_precision_is_that_of_the_device_that_moves():
    policy, start = MixedPrecision(OneSide(TRAIN), N), pair([0.5] * 2, [0.5] * 2)
    start = start._replace(minus=Device(linear(N), G_min=0.9 * G_MAX, G_max=G_MAX))
    asked = STEP * jnp.array([[1.1, -1.1]])
    after, _ = asked_for(policy, start, policy.init(asked), asked)
    np.testing.assert_array_equal(after.cells_plus.n_pulses, [[1, 1]])
    np.testing.assert_allclose((after.dG - start.dG) / STEP, [[1, -1]], atol=1e-4)
    small, _ = asked_for(policy, start, policy.init(asked), 0.8 * asked)
    np.testing.assert_array_equal(small.cells_plus.n_pulses, [[0, 0]])


def test_mixed_precision_loses_nothing_below_a_step():
    policy, state = MixedPrecision(OneSide(TRAIN), N), pair([0.5] * 3, [0.5] * 3)
    small = STEP * jnp.array([[0.3, -0.26, 0.01]])
    memory, start = policy.init(small), state.dG
    for n in range(1, 41):
        state, memory = asked_for(policy, state, memory, small)
        np.testing.assert_allclose(state.dG - start + memory[0], n * small, atol=1e-3 * STEP)
        assert (jnp.abs(memory[0]) < STEP * 1.001).all()


def test_energy_and_time_are_those_of_the_pulses():
    start = pair([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
    dG = STEP * jnp.array([[3.0, 1.0], [0.0, -2.0]])
    after = program(OneSide(TRAIN), start, dG)
    n = np.array([[3, 1], [0, 2]])
    half = (np.asarray(start.cells_plus.G, float) + np.asarray(after.cells_plus.G, float)) / 2
    assert after.spent.energy == pytest.approx((n * 1e-6 * 3.0**2 * half).sum(), rel=1e-5)
    assert after.spent.time == pytest.approx((3 + 2) * 1e-6, rel=1e-5)  # row by row
    np.testing.assert_array_equal(after.cells_plus.n_pulses, n)


def test_rows_go_one_after_another_and_both_sides_of_a_row_at_once():
    start = pair([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
    asked = STEP * jnp.array([[3.0, -2.0], [0.0, -2.0]])
    after = program(Unidirectional(TRAIN), start, asked)
    np.testing.assert_array_equal(after.cells_plus.n_pulses, [[3, 0], [0, 0]])
    np.testing.assert_array_equal(after.cells_minus.n_pulses, [[0, 2], [0, 2]])
    assert after.spent.time == pytest.approx((3 + 2) * 1e-6, rel=1e-5)
    assert float(after.t.s) == pytest.approx(5e-6, rel=1e-5)


def test_what_is_spent_does_not_stall_in_long_runs():
    spent = Spent.none((1,))._replace(energy=jnp.array(1.0), time=jnp.array(2.0))
    more = eqx.filter_jit(lambda s: jax.lax.fori_loop(0, 10_000, lambda _, s: s.more(E, E), s))
    E = jnp.array(1e-8)  # a seventh of what float32 tells apart at 1  # noqa: N806
    after = more(spent)
    # the sum itself is rounded once
    np.testing.assert_allclose([after.energy, after.time], [1 + 1e-4, 2 + 1e-4], rtol=1.2e-7)
    assert after.n_refresh is not None


def test_pulses_and_refreshes_restart_the_drift_by_the_clock_of_the_pair():
    drifting = Device(linear(N), G_min=G_MIN, G_max=G_MAX, nu=0.05)
    late = 3e7 + 1.0  # which float32 has not
    start = pair([0.8, 0.5], [0.4, 0.2], drifting)._replace(t=exact(late, float))
    age = lambda cells: np.ravel(late - sum(np.asarray(part, float) for part in cells.since))  # noqa: E731
    after = program(OneSide(TRAIN), start, jnp.array([[0.0, STEP]]))
    np.testing.assert_allclose(age(after.cells_plus), [late, 0], atol=1e-5)
    np.testing.assert_allclose(age(after.cells_minus), [late, late], atol=1e-5)
    new = refresh(start, jnp.array(0.75), jnp.array(0.25))  # the first pair is worn
    np.testing.assert_allclose(age(new.cells_plus), [0, late], atol=1e-4)
    np.testing.assert_allclose(age(new.cells_minus), [0, late], atol=1e-4)


@pytest.mark.parametrize("wrapped", [lambda policy: policy, lambda p: MixedPrecision(p, N)])
def test_worn_pairs_are_looked_for_once_in_so_many_calls(wrapped):
    policy, state = wrapped(Unidirectional(TRAIN, every=3)), pair(0.8, 0.4)
    nothing, memory = jnp.zeros((1, 1)), wrapped(Unidirectional(TRAIN)).init(jnp.zeros((1, 1)))
    refreshes = []
    for _ in range(6):
        worn = pair(0.8, 0.4)._replace(spent=state.spent)  # worn anew at every call
        state, memory = asked_for(policy, worn, memory, nothing)
        refreshes.append(state.spent.n_refresh.item())
    assert refreshes == [0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_policies_coders_and_pairs_copy_to_equal_ones(copied):
    for x in (*POLICIES.values(), Single(N), Train(N, adaptive=True), pair(0.5, 0.2)):
        assert jax.tree.structure(copied(x)) == jax.tree.structure(x)
        assert eqx.tree_equal(copied(x), x)


@pytest.mark.slow
def test_parameters_of_coders_and_policies_are_vmapped_as_they_are_run_alone():
    worn, dG = pair([0.8, 0.5], [0.4, 0.2]), 6 * STEP * jnp.array([[1.0, -1.0]])
    key = jax.random.key(0)
    for make, values in (
        (lambda x: OneSide(Train(x * 16, longest=x)), [2.0, 5.0]),
        (lambda x: OneSide(Single(x)), [1.0, 64.0]),
        (lambda x: Unidirectional(TRAIN, upper=x, lower=x / 2, longest=50 * x), [0.6, 0.95]),
        (lambda x: MixedPrecision(OneSide(TRAIN), x), [4.0, 64.0]),
    ):
        many = jax.vmap(lambda x, make=make: program(make(x), worn, dG, key).dG)(jnp.array(values))
        alone = [program(make(x), worn, dG, key).dG for x in values]
        np.testing.assert_allclose(many, alone, rtol=1e-5)
        assert np.any(many[0] != many[-1])


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
    assert after.spent.energy == pytest.approx(9e-6 * (reset + written), rel=1e-5)
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Unidirectional(32), r"coder must be callable; got 32: pass hardware.Train\("),
        (lambda: Bidirectional(Train), r"coder must be an instance; got the class: pass Train\("),
        (lambda: OneSide(OneSide(TRAIN)), "coder must say how many .*; got the policy OneSide"),
        (lambda: WriteVerify(Unidirectional), "policy must be an instance; got the class"),
        (lambda: MixedPrecision(TRAIN, N), "policy must say which .*; got the coder Train: pass"),
        (lambda: WriteVerify(5), "policy must be callable; got 5: pass hardware.Bidirectional"),
        (lambda: Device(linear), r"up must be what linear returns; .*: pass hardware.linear\("),
        (lambda: Device(hw.Affine), "up must be an instance; got the class"),
        (lambda: Device(0.1), "up must be callable; got 0.1"),
        (lambda: Device(linear(8), 3), "down must be callable; got 3"),
        (lambda: hw.PCM(linear), "up must be what linear returns"),
        (lambda: hw.Stepwise(0.1), "step must be callable; got 0.1"),
    ],
)
def test_what_is_meant_as_something_else_is_refused_with_the_cure(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("p", [1e-4, 1e-3, 0.3])
def test_single_pulses_are_right_on_the_average_in_half_precision_too(p):
    device = Device(linear(64))
    step, n = float(device.G_max - device.G_min) / 64, 1 << 20
    cells = device.init(jnp.full(n, 5e-6, jnp.bfloat16))
    dG = jnp.full(n, p * step).astype(jnp.bfloat16)
    pulses = hw.Single(64)(device, cells, dG, key=jax.random.key(0)).up
    mean, asked = float(pulses.astype(jnp.float32).mean()), float(dG[0]) / step
    assert abs(mean - asked) < 5 * (asked / n) ** 0.5 + 0.01 * asked  # of three digits
