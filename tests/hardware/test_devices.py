"""Devices against aihwkit's traces, closed forms, and what must hold for any of them."""

import copy
import inspect
import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hardware as hw
from hardware.devices import (
    Affine,
    Device,
    Stepwise,
    Table,
    exp_step,
    exponential,
    linear,
    piecewise,
    power,
    querlioz,
    soft_bounds,
    table,
    varied,
)

AIHWKIT = json.loads(
    (Path(__file__).parents[1] / "oracles/aihwkit_pulse_responses.json").read_text()
)
# Recorded with bounds +-0.6 and dw_min 0.02, so 60 steps of dw_min span the range.
N, RANGE, MIDDLE = 60.0, 1.2, 0.6
G_MIN, G_MAX = 1e-6, 1e-5


def additive(gamma):
    """du = (1 + gamma - 2 gamma u) / N, from dw = dw_min (1 - gamma w / w_max)."""
    return Affine((1 + gamma) / N, 2 * gamma / (1 + gamma))


SAME_AS = {
    "ConstantStep": Device(linear(N)),
    "LinearStep(add) g=.7": Device(additive(0.7)),
    "SoftBounds": Device(Affine(2 / N, 1.0)),
    "PowStep g=0.5": Device(power(N, 0.5)),
    "PowStep g=1.0": Device(power(N, 1.0)),
    "PowStep g=2.0": Device(power(N, 2.0)),
    "ExpStep default": Device(exp_step(N), exp_step(N, 0.36833, 12.78785, 0.244, -0.2425)),
    "Piecewise": Device(piecewise(N, jnp.array([1.5, 1.0, 0.5]))),
}


def curved(u):
    """A response of one's own."""
    return 0.05 * (1 - u**2)


# Those that reach their upper bound after n_pulses: 64 here.
SPANNING = {
    "linear": linear(64),
    "exponential": exponential(64, 20.0),
    "querlioz 1": querlioz(64, 1.0),
    "querlioz 5": querlioz(64, 5.0),
    "power": power(64, 0.0),
}
RESPONSES = SPANNING | {
    "soft bounds": soft_bounds(64),
    "power 2": power(64, 2.0),
    "exp step": exp_step(64),
    "piecewise": piecewise(64, jnp.array([1.5, 1.0, 0.5])),
    "own": Stepwise(curved),
}
DEVICES = {name: Device(r) for name, r in RESPONSES.items()} | {
    "table": table(G_MIN + (G_MAX - G_MIN) * jnp.linspace(0, 1, 65) ** 0.5)
}


plain = inspect.unwrap  # without the types that tests check beforehand


@eqx.filter_jit
def pulse(device, cells, up, down):
    return device.pulse(cells, up, down)


def pulses(device, cells, up, down=0, key=None):
    full = jnp.full(cells.G.shape, 1.0)
    if key is None:
        return pulse(device, cells, up * full, down * full)
    return device.pulse(cells, up * full, down * full, key=key)


@pytest.mark.parametrize("name", SAME_AS)
def test_pulse_by_pulse_a_device_is_that_of_aihwkit(name):
    device = replace(SAME_AS[name], G_min=jnp.array(0.0), G_max=jnp.array(RANGE))
    cells = device.init(jnp.array([MIDDLE - 0.2]))
    w = [float(cells.G[0])]
    for n in range(80):
        cells = pulses(device, cells, float(n < 40), float(n >= 40))
        w.append(float(cells.G[0]))
    np.testing.assert_allclose(np.array(w) - MIDDLE, AIHWKIT[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("up", [True, False])
def test_n_pulses_at_once_are_n_single_ones(name, up):
    device = DEVICES[name]
    start = device.init(jnp.linspace(G_MIN, G_MAX, 40))
    n = jnp.asarray(np.resize([0.0, 1, 2, 5, 17, 40, 90], 40))
    at_once = pulse(device, start, n * float(up), n * float(not up))
    one_by_one = start
    for i in range(90):
        one = (i < n).astype(float)
        one_by_one = pulse(device, one_by_one, one * float(up), one * float(not up))
    # Each single pulse rounds G and u once more: 90 roundings of float32.
    np.testing.assert_allclose(at_once.G, one_by_one.G, rtol=90 * 1.2e-7, atol=0)
    np.testing.assert_array_equal(at_once.n_pulses, one_by_one.n_pulses)


@pytest.mark.parametrize("name", SPANNING)
def test_n_pulses_span_the_range_both_ways(name):
    device = Device(SPANNING[name])
    cells = device.init(jnp.array([G_MIN, G_MAX]))
    n = jnp.full(2, 64.0)
    cells = device.pulse(cells, n.at[1].set(0), n.at[0].set(0))
    np.testing.assert_allclose(cells.G, [G_MAX, G_MIN], rtol=1e-5)
    short = device.pulse(device.init(jnp.array([G_MIN])), n[:1] - 1, 0 * n[:1])
    assert short.G[0] < G_MAX * (1 - 1e-4)


def test_exponential_device_follows_its_closed_form():
    a, last = 20.0, 64
    device, n = Device(exponential(last, a)), jnp.arange(last + 1.0)
    cells = device.pulse(device.init(jnp.full(last + 1, G_MIN)), n, 0 * n)
    b = (G_MAX - G_MIN) / (1 - np.exp(-last / a))
    np.testing.assert_allclose(
        cells.G, b * (1 - np.exp(-np.arange(last + 1) / a)) + G_MIN, rtol=1e-6
    )
    inverse = -a * np.log(1 - (np.asarray(cells.G, float) - G_MIN) / b)
    np.testing.assert_allclose(inverse, n, atol=1e-3)  # 1e-7 of G over the last step, .2% of R


@pytest.mark.parametrize("name", DEVICES)
def test_pulses_lead_to_a_conductance_and_back(name):
    device = DEVICES[name]
    n = jnp.arange(0.0, 40.0)
    there = pulse(device, device.init(jnp.full(40, G_MIN)), n, 0 * n)
    np.testing.assert_array_equal(device.pulses_to(there.G), n)


@pytest.mark.parametrize("name", DEVICES)
def test_bounds_hold_and_pulses_go_the_right_way(name):
    device, draw = DEVICES[name], np.random.default_rng(0)
    start = device.init(jnp.linspace(G_MIN, G_MAX, 40))
    n, m = np.floor(300 ** draw.uniform(size=(2, 40))) - 1  # few and many alike
    up = pulses(device, start, n)
    down = pulses(device, up, 0, m)
    for cells in (start, up, down):
        assert G_MIN * (1 - 1e-6) <= cells.G.min()
        assert cells.G.max() <= G_MAX * (1 + 1e-6)
    assert (up.G >= start.G * (1 - 1e-6)).all()
    assert (down.G <= up.G * (1 + 1e-6)).all()
    np.testing.assert_array_equal(down.n_pulses, n + m)


@pytest.mark.parametrize("name", DEVICES)
def test_enough_pulses_reach_either_bound(name):
    device = DEVICES[name]
    start = device.init(jnp.linspace(G_MIN, G_MAX, 40))
    # power 2 is the slowest: 1 - u = 64 / n, so 10,000 pulses leave less than 1%.
    np.testing.assert_allclose(pulses(device, start, 10_000).G, G_MAX, rtol=0.01)
    low = pulses(device, start, 0, 10_000).G - G_MIN
    assert low.max() <= 0.01 * (G_MAX - G_MIN)


def test_cycle_noise_grows_with_the_root_of_the_pulses():
    device = Device(linear(1000), sigma_c2c=0.002)
    start = device.init(jnp.full(20_000, 5.5e-6))
    for n in (1, 9):
        after = pulses(device, start, n, key=jax.random.key(n)).G
        moved = (np.asarray(after, float) - 5.5e-6) / (G_MAX - G_MIN)
        sigma = 0.002 * np.sqrt(n)
        assert moved.mean() == pytest.approx(n / 1000, abs=4 * sigma / np.sqrt(20_000))
        assert moved.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * 20_000))


WIDE = Device(linear(64), G_min=2e-6, G_max=5.2e-5, sigma_c2c=0.02)
LINEAR = Device(linear(64))
STEPS = replace(table(2e-6 + 5e-5 * jnp.linspace(0, 1, 65)), sigma_c2c=jnp.array(0.02))


@pytest.mark.parametrize("device", [WIDE, STEPS])
def test_cycle_noise_is_a_part_of_the_range_and_ends_at_its_ends(device):
    n, width = 20_000, 5e-5
    half, full = device.init(jnp.full(n, 2e-6 + width / 2)), jnp.ones(n)
    after = device.pulse(half, 4 * full, 0 * full, key=jax.random.key(0)).G
    assert np.std(after, dtype=float) / width == pytest.approx(0.04, rel=4 / np.sqrt(2 * n))
    for end, up in ((2e-6, 0.0), (5.2e-5, 1.0)):
        at = device.init(jnp.full(n, end))
        after = np.asarray(device.pulse(at, up * full, (1 - up) * full, key=jax.random.key(1)).G)
        assert after.min() >= 2e-6 * (1 - 1e-6)
        assert after.max() <= 5.2e-5 * (1 + 1e-6)
        # what the noise would carry over the end stays there: half of them
        assert np.isclose(after, end, rtol=1e-6).mean() == pytest.approx(0.5, abs=4 / 2 / n**0.5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_devices_and_their_state_copy_to_equal_ones(copied):
    own = replace(WIDE, up=Stepwise(curved), nu=jnp.array(0.1))
    for device in (*SAME_AS.values(), WIDE, STEPS, own, hw.PCM()):
        for x in (device, device.init(jnp.full(2, 3e-6))):
            assert jax.tree.structure(copied(x)) == jax.tree.structure(x)
            assert eqx.tree_equal(copied(x), x)
    jitted = Device(Stepwise(jax.jit(curved)))
    assert eqx.tree_equal(copy.deepcopy(jitted), jitted)


@pytest.mark.parametrize("device", [Device(linear(64)), DEVICES["table"]])
def test_pulses_up_come_before_pulses_down(device):
    top = device.init(jnp.full(1, G_MAX))
    one = pulses(device, top, 0, 5)
    # 5 up do nothing at the bound; 5 down would be taken back by 5 up
    np.testing.assert_allclose(pulses(device, top, 5, 5).G, one.G, rtol=1e-6)
    low = device.init(jnp.full(1, G_MIN))
    np.testing.assert_allclose(pulses(device, low, 5, 5).G, low.G, rtol=1e-6)


def test_read_noise_is_a_part_of_the_range_and_no_conductance_is_below_zero():
    for device in (
        replace(WIDE, sigma_read=jnp.array(0.1)),
        replace(STEPS, sigma_read=jnp.array(0.1)),
    ):
        cells = device.init(jnp.full(20_000, 2e-6))
        seen = np.asarray(device.read(cells, key=jax.random.key(0)), float)
        assert np.std(seen[seen > 2e-6] - 2e-6) > 0
        # half normal above, of spread 5 uS: its mean is .798 sigma
        above = seen[seen > 2e-6] - 2e-6
        assert above.mean() == pytest.approx(0.798 * 5e-6, rel=4 * 0.76 / np.sqrt(len(above)))
        assert seen.min() == 0


def test_a_device_without_pulses_keeps_its_conductance_to_the_bit():
    device = Device(soft_bounds(64), sigma_c2c=0.1)
    start = device.init(jnp.linspace(G_MIN, G_MAX, 50))
    np.testing.assert_array_equal(pulses(device, start, 0, key=jax.random.key(0)).G, start.G)
    between = pulses(STEPS, STEPS.init(start.G), 1, key=jax.random.key(1))  # noisy: no level
    np.testing.assert_array_equal(pulses(STEPS, between, 0, key=jax.random.key(0)).G, between.G)


def test_a_response_by_its_slope_is_right_at_its_ends():
    at = lambda step, slope, u, n: Affine(step, slope)(jnp.asarray(u), jnp.asarray(n))  # noqa: E731
    np.testing.assert_allclose(at(0.25, 0.0, 0.1, 2.0), 0.6, rtol=1e-6)  # linear
    assert at(1.0, 1.0, 0.3, 0.0) == np.float32(0.3)  # none, where one would lead to the bound
    assert at(1.0, 1.0, 0.3, 1.0) == 1
    np.testing.assert_allclose(at(0.8, 1.5, 0.0, 1.0), 2 / 3, rtol=1e-6)  # and not beyond
    slope = jax.grad(lambda slope: Affine(0.1, slope)(jnp.asarray(0.5), jnp.asarray(3.0)))(0.0)
    inverse = jax.grad(lambda slope: Affine(0.1, slope).pulses_to(jnp.asarray(0.5)))(0.0)
    assert np.isfinite([slope, inverse]).all()


def test_any_number_of_pulses_leads_to_where_it_is_asked_for():
    G = G_MIN + (G_MAX - G_MIN) * jnp.array([0.3, 1.0])
    for up, expected in (
        (linear(4), [1.2, 4.0]),
        (Affine(0.25, 0.0), [1.2, 4.0]),
        (soft_bounds(4), np.log([0.7, 1e-6]) / np.log(0.75)),  # to 1e-6 of the bound
        (soft_bounds(1), [np.log(0.7) / np.log(1e-6), 1.0]),
        (exponential(8, 3.0), [-3 * np.log(1 - 0.3 * (1 - np.exp(-8 / 3))), 8.0]),
        (power(4, 0.0), [1.0, 4.0]),  # without a closed form whole ones
    ):
        n = Device(up, discrete=False).pulses_to(G)
        np.testing.assert_allclose(n, expected, rtol=2e-3)  # 1 - 1e-6 has two digits
        assert Device(up, discrete=False).pulses_to(G, 0.75).max() <= 0.75
        if not isinstance(up, Stepwise) and not jnp.all(up.step == 1):  # that one takes any to 1
            fresh = Device(up, discrete=False).init(jnp.full(2, G_MIN))
            after = Device(up, discrete=False).pulse(fresh, n, 0 * n)
            np.testing.assert_allclose(after.G, G, rtol=1e-5)
            np.testing.assert_array_equal(after.n_pulses, np.ceil(n))  # begun ones wear it too


def test_a_device_that_moves_no_further_is_pulsed_no_more():
    halfway = Device(Stepwise(lambda u: jnp.where(u < 0.45, 0.1, 0.0)))
    assert halfway.pulses_to(jnp.array(G_MAX)) == 5
    assert Device(soft_bounds(4)).pulses_to(jnp.array(G_MAX)) == 48  # 1e-6 of the range are left


@pytest.mark.usefixtures("untyped")
def test_steps_of_ones_own_stay_in_the_range_and_in_their_type():
    down = Stepwise(lambda u: 0 * u - 0.3)
    np.testing.assert_allclose(down(jnp.array([0.2, 0.9]), jnp.ones(2)), [0.0, 0.6], rtol=1e-6)
    for n in (-1, 2.0**20 + 1):
        with pytest.raises(
            ValueError, match=r"n must lie in \[0, 1.04858e\+06\] pulses, which are"
        ):
            down(jnp.zeros(1), n)
    assert down(jnp.zeros((0,)), jnp.zeros((0,))).shape == (0,)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        wide = Stepwise(lambda u: jnp.full(u.shape, 0.25, "float64"))
        assert wide(jnp.zeros(2, "float32"), jnp.ones(2, "float64")).dtype == "float32"
        assert wide(jnp.zeros(2, int), 1).dtype == "float64"


def test_numbers_of_pulses_and_slopes_may_differ_from_device_to_device():
    n, beta = jnp.array([8.0, 64.0, 64.0]), jnp.array([2.0, 2.0, 5.0])
    for up in (querlioz(n, beta), querlioz(n, 2.0), power(n, 0.0), exponential(n, 10.0)):
        device = Device(up)
        cells = device.init(jnp.full(3, G_MIN))
        np.testing.assert_allclose(device.pulse(cells, n, 0 * n).G, G_MAX, rtol=1e-5)
        assert (device.pulse(cells, n - 1, 0 * n).G < G_MAX * (1 - 1e-4)).all()


@pytest.mark.parametrize("up", [power(64, 0.5), soft_bounds(64)])
@pytest.mark.parametrize("kind", [Device, hw.PCM])
def test_half_precision_is_calculated_in_float32_and_its_rounding_leads_nowhere(kind, up):
    device = kind(up, G_min=1e-6, G_max=1e-5)  # bfloat16 rounds both outwards
    ends = jnp.array([1e-6, 1e-5, 5e-6], "bfloat16")
    cells = device.init(ends)._replace(G=ends)
    assert float(ends[0]) < 1e-6 < 1e-5 < float(ends[1])
    fine = cells._replace(G=ends.astype("float32"))
    for n in ((3.0, 0.0), (0.0, 3.0), (2.0, 1.0)):
        n = [jnp.full(3, x) for x in n]
        after = device.pulse(cells, *n).G
        assert np.isfinite(after.astype("float32")).all()
        np.testing.assert_array_equal(after, device.pulse(fine, *n).G.astype("bfloat16"))


@pytest.mark.parametrize("device", [Device(linear(1000)), table(jnp.linspace(1e-6, 1e-5, 1001))])
def test_pulses_of_half_precision_are_counted_beyond_256(device):
    G = jnp.array([4e-6, 1e-5], "bfloat16")
    n = device.pulses_to(G)
    assert n.dtype == "float32"
    np.testing.assert_allclose(n, (np.asarray(G, float) - 1e-6) / 9e-6 * 1000, rtol=0.01)
    cells = device.pulse(device.init(jnp.full(2, 1e-6, "bfloat16")), n, 0 * n)
    np.testing.assert_array_equal(cells.n_pulses, n)
    np.testing.assert_allclose(cells.G.astype(float), G.astype(float), rtol=2.0**-7)


@pytest.mark.parametrize(
    "device", [Device(linear(64), nu=0.1, t_0=0.5), hw.PCM(t_0=0.5), DEVICES["table"]]
)
def test_a_fresh_device_has_no_pulses_and_time_begins_at_0(device):
    fresh = device.init(jnp.full((2, 3), 5e-6))
    np.testing.assert_array_equal(fresh.n_pulses, np.zeros((2, 3)))
    ends = device.init(jnp.array([0.0, 1.0])).G  # held within the window
    np.testing.assert_allclose(ends, [device.G_min, device.G_max], rtol=1e-6)
    if not hasattr(fresh, "since"):
        return
    pulsed = device.pulse(fresh, jnp.ones((2, 3)), jnp.zeros((2, 3)))
    for cells in (fresh, pulsed):
        np.testing.assert_array_equal(cells.since.s, np.zeros((2, 3)))
    early = device.init(jnp.full(2, 5e-6), t=-5.0)
    np.testing.assert_array_equal(device.read(early), device.read(early, t=0.0))
    np.testing.assert_array_equal(device.read_sigma(early), device.read_sigma(early, t=0.0))
    assert (device.read(early) < 0.9 * early.G).all()


def test_cells_that_do_not_drift_are_read_as_they_are():
    cells = Device(linear(64)).init(jnp.full(2, 5e-6))
    drifting = Device(linear(64), nu=0.1)
    np.testing.assert_array_equal(drifting.read(cells, t=1e6), cells.G)
    np.testing.assert_array_equal(Device(linear(64)).read(drifting.init(cells.G), t=1e6), cells.G)


@pytest.mark.parametrize("device", [Device(linear(64)), hw.PCM(), DEVICES["table"]])
def test_refuses_cells_that_are_none(device, untyped):
    for cells in (3, None, SimpleNamespace(G=1e-6)):
        with pytest.raises(TypeError, match="cells must be what init gives; got"):
            device.pulse(cells, 1, 0)


@pytest.mark.parametrize("up", [linear(4), power(4, 0.0)])
def test_a_goal_halfway_takes_the_fewer_pulses_and_one_outside_ends_at_its_end(up):
    device = Device(up, G_min=0.0, G_max=8.0)
    np.testing.assert_array_equal(device.pulses_to(jnp.array([-9.0, 1.0, 3.0, 99.0])), [0, 0, 1, 4])


@pytest.mark.slow
def test_what_is_not_varied_stays_and_what_is_stuck_is_drawn_by_a_key_of_its_own():
    key, shape = jax.random.key(3), (50,)
    same = varied(key, LINEAR, shape, 0.0)
    assert (same.stuck, same.nu) == (None, None)
    np.testing.assert_array_equal(same.G_max, np.full(shape, LINEAR.G_max))
    coin = jax.random.uniform(jax.random.fold_in(key, 10**6), shape)
    for low, high in ((0.3, 0.0), (0.0, 0.2), (0.3, 0.2)):
        drawn = varied(key, LINEAR, shape, 0.1, stuck_low=low, stuck_high=high)
        expected = np.where(coin < low, -1, np.where(coin >= 1 - high, 1, 0))
        np.testing.assert_array_equal(drawn.stuck, expected)
    slope = jax.grad(lambda sigma: varied(key, LINEAR, shape, sigma).G_max.sum())(0.0)
    assert np.isfinite(slope)
    each = replace(LINEAR, up=linear(jnp.full(50, 64.0)))  # one a device: drawn as well
    assert np.std(inspect.unwrap(varied)(key, each, [50], 0.1).up.step) > 1e-4
    for low, high in ((-0.1, 0.0), (0.0, 1.1), (1.1, 0.0), (0.0, -0.1)):
        with pytest.raises(ValueError, match=r"stuck_(low|high) must lie in \[0, 1\]; got"):
            varied(key, LINEAR, shape, 0.1, stuck_low=low, stuck_high=high)


def test_only_what_is_known_is_known_to_be_zero():
    assert hw.devices.known_zero(0.0)
    assert hw.devices.known_zero(jnp.zeros(2))
    assert not hw.devices.known_zero(np.array([0.0, 0.1]))
    assert jax.jit(lambda x: hw.devices.known_zero(x))(0.0) == False  # noqa: E712


def test_a_part_that_is_stuck_may_differ_from_device_to_device():
    device = varied(jax.random.key(0), LINEAR, (2,), 0.0, stuck_low=jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(device.stuck, [0, -1])


def test_read_noise_has_the_spread_asked_for_and_leaves_the_state():
    device = Device(linear(64), sigma_read=0.05)
    cells = device.init(jnp.full(20_000, 5.5e-6))
    seen = np.asarray(device.read(cells, key=jax.random.key(0)), float)
    sigma = 0.05 * (G_MAX - G_MIN)
    assert seen.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * 20_000))
    assert seen.mean() == pytest.approx(5.5e-6, abs=4 * sigma / np.sqrt(20_000))
    np.testing.assert_array_equal(device.read(cells), cells.G)


def test_conductance_drifts_with_slope_minus_nu():
    device = Device(linear(64), nu=0.06, t_0=20.0)
    cells = device.init(jnp.array([8e-6]))
    t = np.array([0.0, 10.0, 20.0, 2e2, 2e3, 2e6])
    G = np.array([float(device.read(cells, t=x)[0]) for x in t])
    np.testing.assert_allclose(G[:3], 8e-6, rtol=1e-6)
    slope = np.diff(np.log(G[2:])) / np.diff(np.log(t[2:]))
    np.testing.assert_allclose(slope, -0.06, rtol=1e-4)
    again = device.pulse(cells, jnp.ones(1), jnp.zeros(1), t=1e3)
    assert device.read(again, t=1e3)[0] == again.G[0] > cells.G[0]


def test_nothing_has_drifted_before_the_last_pulse():
    device = Device(linear(64), nu=0.1, t_0=1.0)
    cells = device.pulse(device.init(jnp.full(1, 5e-6)), jnp.ones(1), jnp.zeros(1), t=100.0)
    for t in (0.0, 50.0, 100.0, 101.0):
        np.testing.assert_array_equal(device.read(cells, t=t), cells.G)
    np.testing.assert_allclose(device.read(cells, t=110.0), cells.G * 10**-0.1, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_only_a_pulse_restarts_the_drift_and_the_clock_is_right_after_a_year(dtype):
    with jax.enable_x64(dtype == "float64"):
        year, device = 3.2e7, Device(linear(64), nu=0.05, t_0=1.0)
        cells = device.init(jnp.full(2, 5e-6, dtype))
        pulsed = device.pulse(cells, jnp.array([1.0, 0.0], dtype), jnp.zeros(2, dtype), t=year + 1)
        seen = np.asarray(device.read(pulsed, t=year + 11)) / pulsed.G
        # float32 moves in steps of 2 s there; now an age is rounded but once, to 6e-8 of itself
        np.testing.assert_allclose(seen, [10**-0.05, (year + 11) ** -0.05], rtol=1e-6)


def test_variation_has_its_moments_and_keeps_the_window_open():
    device = varied(jax.random.key(0), Device(linear(64), nu=0.1), (40_000,), 0.3)
    nominal = {"step": 1 / 64, "G_min": G_MIN, "range": G_MAX - G_MIN, "nu": 0.1}
    drawn = {
        "step": device.up.step,
        "G_min": device.G_min,
        "range": device.G_max - device.G_min,
        "nu": device.nu,
    }
    # The normal is cut off at 1 / .3 sigma, where its variance is .9897 of the whole.
    sigma = 0.3 * np.sqrt(0.9897)
    for name, x in drawn.items():
        factor = np.asarray(x, float) / nominal[name]
        assert factor.mean() == pytest.approx(1, abs=4 * sigma / 200)
        assert factor.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * 40_000) + 1e-3)
        assert factor.min() > 0
    assert (device.G_max > device.G_min).all()
    drawn["down"] = device.down.step
    apart = np.abs(np.corrcoef(list(drawn.values())) - np.eye(5))
    assert apart.max() < 4 / 200  # every parameter is drawn on its own


def test_parts_of_the_devices_are_stuck_and_stay_so():
    device = varied(
        jax.random.key(1), Device(linear(8)), (10_000,), 0.0, stuck_low=0.1, stuck_high=0.2
    )
    cells = pulses(device, device.init(jnp.full(10_000, 5e-6)), 3)
    low, high = np.isclose(cells.G, G_MIN), np.isclose(cells.G, G_MAX)
    assert low.mean() == pytest.approx(0.1, abs=4 * 0.003)
    assert high.mean() == pytest.approx(0.2, abs=4 * 0.004)
    for up, down in ((50, 0), (0, 50)):
        after = pulses(device, cells, up, down).G
        np.testing.assert_array_equal(after[low | high], cells.G[low | high])


def test_a_table_has_no_states_but_its_levels():
    levels = jnp.array([1e-6, 2e-6, 4e-6, 8e-6])
    device = Table(levels)
    cells = device.init(jnp.array([1.4e-6, 1.6e-6, 7e-6]))
    np.testing.assert_array_equal(cells.level, [0, 1, 3])
    cells = device.pulse(cells, jnp.array([2.0, 9, 0]), jnp.array([0.0, 0, 1]))
    np.testing.assert_array_equal(cells.level, [2, 3, 2])
    np.testing.assert_array_equal(cells.G, levels[jnp.array([2, 3, 2])])


def test_a_table_is_linear_between_its_points():
    device = table(jnp.array([1.0, 2.0, 4.0]), n_states=5)
    np.testing.assert_allclose(device.levels, [1.0, 1.5, 2.0, 3.0, 4.0])


def test_parameters_are_vmapped_as_they_are_run_alone():
    def after(beta, n):
        device = Device(querlioz(n, beta))
        return device.pulse(device.init(jnp.array([2e-6])), jnp.array([5.0]), jnp.array([2.0])).G

    beta, n = jnp.array([0.5, 2.0, 5.0]), jnp.array([16.0, 64.0, 256.0])
    after = eqx.filter_jit(after)
    alone = jnp.stack([after(b, k) for b, k in zip(beta, n, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(after))(beta, n), alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Device(linear(8), G_min=1e-5, G_max=1e-5), "G_max must be above G_min"),
        (lambda: Device(linear(8), G_min=-1e-6), r"G_min must be finite and >= 0 S; got -1e-06"),
        (lambda: linear(0), r"n_pulses must be finite and > 0 pulses; got 0"),
        (lambda: querlioz(8, -1.0), r"beta must lie in"),
        (lambda: exponential(8, 0.0), r"a must be finite and > 0 pulses"),
        (lambda: Device(linear(8), sigma_c2c=-0.1), r"sigma_c2c must be finite and >= 0"),
        (lambda: Table(jnp.array([1e-6])), r"levels must be two or more rising numbers, S"),
        (lambda: Table(jnp.array([2e-6, 1e-6])), r"levels must be two or more rising"),
        (lambda: table(jnp.array([1.0, 2.0]), 1), r"n_states must be a whole number >= 2; got 1"),
        (lambda: linear(0.5), r"step must lie in \[0, 1\]; got 2"),
        (lambda: table(jnp.array([1.0, jnp.nan])), "G must be finite"),
        (lambda: exp_step(8, a=jnp.nan), "a must lie in"),
        (lambda: piecewise(8, jnp.array([1.0])), r"nodes must be two or more .* shape \(1,\)"),
        (lambda: piecewise(8, jnp.array([1.0, -1.0])), "nodes must be finite and >= 0"),
        (
            lambda: Device(linear(jnp.full(3, 8.0))).init(jnp.full((2, 3), 1e-6)),
            r"step of Affine must be one number or one a device, of shape \(2, 3\); got .*\(3,\)",
        ),
        (
            lambda: Device(linear(8), G_max=jnp.full(3, 1e-5)).init(jnp.full(4, 1e-6)),
            r"G_max of Device must be one number or one a device, of shape \(4,\)",
        ),
        (
            lambda: varied(jax.random.key(0), Device(linear(8)), (2,), -0.1),
            r"sigma_d2d must be finite and >= 0",
        ),
        (
            lambda: varied(jax.random.key(0), Device(linear(8)), (2,), 0.1, stuck_low=1.5),
            r"stuck_low must lie in \[0, 1\]",
        ),
        (
            lambda: varied(
                jax.random.key(0), Device(linear(8)), (2,), 0.1, stuck_low=0.6, stuck_high=0.6
            ),
            r"stuck_low \+ stuck_high must lie in \[0, 1\]; got 1.2",
        ),
    ],
)
def test_a_device_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: plain(varied)(0, Device(linear(8)), (2,), 0.1),
            r"key must be a JAX key; got 0: pass",
        ),
        (lambda: plain(varied)(jax.random.key(0), Device, (2,), 0.1), "device must be an instance"),
        (
            lambda: plain(varied)(jax.random.key(0), STEPS, (2,), 0.1),
            "device must be a Device; got Table",
        ),
    ],
)
def test_what_cannot_be_varied_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("shape", [(2.5,), (-1,), [[1.0, 1.0]]])
def test_a_shape_is_of_whole_numbers(shape):
    with pytest.raises(ValueError, match=r"shape must be a whole number >= 0; got [\[\-2]"):
        plain(varied)(jax.random.key(0), Device(linear(8)), shape, 0.1)


@pytest.mark.parametrize("device", [Device(linear(64)), DEVICES["table"], hw.PCM()])
def test_what_no_device_can_take_is_refused_and_whole_numbers_are_pulses(device, untyped):
    cells = device.init(jnp.full(3, 2e-6))
    one = device.pulse(cells, jnp.ones(3), jnp.zeros(3)).G
    np.testing.assert_array_equal(device.pulse(cells, jnp.ones(3, int), jnp.zeros(3, bool)).G, one)
    np.testing.assert_array_equal(device.pulse(cells, 1, 0).G, one)
    assert device.init(jnp.zeros(3, int)).G.dtype == jnp.float32
    with pytest.raises(ValueError, match="n_up must be >= 0 pulses, at most 2147483647; got -1"):
        device.pulse(cells, -1, 0)
    with pytest.raises(ValueError, match="n_down must be >= 0 pulses, at most 2147483647; got nan"):
        device.pulse(cells, 1, jnp.nan)
    with pytest.raises(ValueError, match="G must be finite, in S; got NaN or infinity"):
        device.init(jnp.array([1e-6, jnp.nan]))
    noisy = replace(device, sigma_c2c=jnp.array(0.1)) if hasattr(device, "sigma_c2c") else device
    for act in (lambda: noisy.pulse(cells, 1, 0, key=3), lambda: noisy.read(cells, key=3)):
        with pytest.raises((TypeError, ValueError), match="key"):
            act()


@pytest.mark.slow
def test_every_parameter_can_be_vmapped():
    def after(x):
        made = Device(
            Affine(0.02 * x, x), linear(50 * x), G_min=1e-6 * x, G_max=1e-5 * x,
            sigma_c2c=0.01 * x, sigma_read=0.02 * x, nu=0.05 * x, t_0=x, v_pulse=x,
            t_pulse=1e-7 * x,
        )  # fmt: skip
        device = varied(jax.random.key(0), made, (4,), 0.1 * x, stuck_low=0.2 * x, stuck_high=0.1)
        cells = device.init(jnp.linspace(2e-6, 8e-6, 4))
        cells = device.pulse(cells, jnp.full(4, 3.0), jnp.ones(4), key=jax.random.key(1))
        return device.read(cells, key=jax.random.key(2), t=100.0 * x)

    x = jnp.array([0.5, 1.0])
    after = eqx.filter_jit(after)
    alone = jnp.stack([after(a) for a in x])
    np.testing.assert_allclose(eqx.filter_jit(jax.vmap(after))(x), alone, rtol=1e-5)
    steps = eqx.filter_jit(jax.vmap(lambda G: table(G, n_states=5).levels))
    np.testing.assert_allclose(steps(jnp.array([[1.0, 3.0]])), [[1.0, 1.5, 2.0, 2.5, 3.0]])


@pytest.mark.parametrize("response", [linear(1e7), Stepwise(lambda u: jnp.full_like(u, 1e-7))])
def test_a_write_that_would_not_end_is_given_up(response):
    device, G = Device(response), jnp.array([1e-6, 5e-6])
    np.testing.assert_array_equal(device.pulses_to(G), [0, 2**16])
    np.testing.assert_array_equal(device.pulses_to(G, 30.5), [0, 30])


@pytest.mark.parametrize(
    "make", [lambda n: hw.querlioz(n, 2.0), lambda n: hw.power(n, 1.0)], ids=["querlioz", "power"]
)
def test_what_is_gone_through_one_by_one_is_made_under_jit_as_outside(make):
    u, n = jnp.linspace(0, 0.5, 5), jnp.full(5, 3.0)
    inside = jax.jit(lambda u, n: make(64.0)(u, n))(u, n)
    np.testing.assert_allclose(inside, make(64.0)(u, n), rtol=1e-6)
    with pytest.raises(ValueError, match="n_pulses must be at most"):
        jax.jit(lambda u, n: make(1e9)(u, n))(u, n)
