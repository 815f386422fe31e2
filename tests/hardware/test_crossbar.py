"""Crossbars: the seam that learning sees, and what conductances and converters do to it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hardware.crossbar import Crossbar, Quantiser, crossbar
from hardware.devices import Device, linear, querlioz, table
from hardware.programming import (
    Bidirectional,
    MixedPrecision,
    OneSide,
    Single,
    Train,
    Unidirectional,
    WriteVerify,
)
from neurojax.connectivity import bernoulli, fan_in, locally_dense
from neurojax.feedback import broadcast
from neurojax.layouts import Dense
from neurojax.learning import wta_broadcast as wb
from neurojax.network import Layer
from neurojax.neurons import LIF
from neurojax.plasticity import Homeostasis, ThreeFactor
from neurojax.structured import Recurrence, structured
from neurojax.teaching import SoftWTA
from neurojax.weights import Ideal, Weights, normal

KEY, N, W_MAX = jax.random.key(0), 64, 0.5
LEVEL = W_MAX / N  # weight of one step of one device
LINEAR = Device(linear(N))
DENSE, FAN, BAND = Dense(12, 20), fan_in(KEY, 24, 10, 0.5), locally_dense(KEY, 40, 5, 0.0)[0]
LISTED = bernoulli(KEY, 14, 18, 0.3)
WIRINGS = {"dense": DENSE, "fan-in": FAN, "band": BAND, "events": LISTED}
POLICIES = {
    "bidirectional": Bidirectional(Train(N)),
    "one side": OneSide(Train(N)),
    "unidirectional": Unidirectional(Train(N)),
    "write-verify": WriteVerify(OneSide(Train(N))),
    "mixed precision": MixedPrecision(OneSide(Train(N)), N),
}


def drawn(wiring, **options):
    """An array of its own for `wiring`, and the numbers that it was asked to hold."""
    policy = options.pop("policy", POLICIES["one side"])
    options.setdefault("start", "middle")
    w = normal(KEY, wiring, 0.5)
    return crossbar(options.pop("device", LINEAR), policy, W_MAX, **options)(w, wiring, KEY), w


@pytest.mark.parametrize("kind", ["differential", "reference"])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_an_array_holds_what_it_was_given_within_a_level(wiring, kind):
    device, w = drawn(WIRINGS[wiring], kind=kind)
    assert isinstance(device, Weights)
    reach = W_MAX - LEVEL
    np.testing.assert_allclose(device.w, np.clip(w, -reach, reach), atol=1.01 * LEVEL)
    assert len(np.unique(np.rint(np.asarray(device.w) / LEVEL))) > 10


@pytest.mark.parametrize("wiring", WIRINGS)
def test_all_three_ways_go_through_the_same_conductances(wiring):
    wiring = WIRINGS[wiring]
    device, _ = drawn(wiring, sigma_d2d=0.3)
    plain = Ideal(device.w, wiring)
    s, e = jax.random.normal(KEY, (wiring.n_pre,)), jax.random.normal(KEY, (wiring.n_post,))
    np.testing.assert_allclose(device.apply(s), plain.apply(s), rtol=1e-6)
    np.testing.assert_allclose(device.apply_t(e), plain.apply_t(e), rtol=1e-6)
    asked = device.outer(e[None], s[None])
    np.testing.assert_array_equal(asked, plain.outer(e[None], s[None]))
    changed = device.program(0.1 * jnp.sign(asked))
    np.testing.assert_allclose(changed.apply(s), Ideal(changed.w, wiring).apply(s), rtol=1e-6)
    assert np.any(changed.w != device.w)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_change_of_whole_levels_is_made(policy):
    start = "low" if policy == "unidirectional" else "middle"
    device, _ = drawn(DENSE, policy=POLICIES[policy], start=start)
    dw = 2 * LEVEL * (1 + 1e-5) * jnp.sign(jax.random.normal(KEY, DENSE.shape))
    inside = np.abs(device.w + dw) < W_MAX / 2
    moved = eqx.filter_jit(lambda d, dw: d.program(dw, key=KEY))(device, dw)
    np.testing.assert_allclose((moved.w - device.w)[inside], dw[inside], atol=0.02 * LEVEL)
    n = np.asarray(moved.n_pulses - device.n_pulses)
    assert n.sum() > 0
    assert moved.pair.spent.energy > 0
    assert moved.pair.spent.time > 0


@pytest.mark.parametrize("n", [15, 64])  # with 15 pulses no device lies in the middle
def test_a_reference_column_lies_in_the_middle_and_costs_nothing(n):
    device, w = drawn(DENSE, device=Device(linear(n)), kind="reference")
    middle = (device.pair.minus.G_min + device.pair.minus.G_max) / 2
    np.testing.assert_allclose(device.pair.cells_minus.G, middle, rtol=1e-6)
    assert device.pair.cells_minus.n_pulses.sum() == 0
    error = np.asarray(device.w - np.clip(w, -W_MAX, W_MAX))
    assert np.abs(error).max() <= 1.01 * W_MAX / n  # half of a step of 2 w_max / n


def test_where_there_is_no_synapse_nothing_is_held_and_nothing_is_programmed():
    device, _ = drawn(BAND, sigma_d2d=0.3)
    changed = device.program(jnp.full(BAND.shape, 2 * LEVEL))
    absent = ~np.asarray(BAND.mask)
    assert absent.any()
    for held in (device, changed):
        assert (np.asarray(held.w)[absent] == 0).all()
    pulses = np.asarray(changed.n_pulses - device.n_pulses)
    assert (pulses[absent] == 0).all()
    assert (pulses[~absent] > 0).all()


def test_devices_without_read_noise_draw_none_also_when_made_under_jit():
    for device, noisy in ((LINEAR, False), (Device(linear(N), sigma_read=0.02), True)):
        make = crossbar(device, POLICIES["one side"], W_MAX)
        made = eqx.filter_jit(lambda w, make=make: make(w, DENSE, KEY))(jnp.zeros(DENSE.shape))
        assert made.noisy is noisy


def test_variation_reaches_the_weights_and_the_key_decides_it():
    make = crossbar(LINEAR, POLICIES["one side"], W_MAX, sigma_d2d=0.2, start="middle")
    w = jnp.zeros(DENSE.shape)
    one, same, other = (make(w, DENSE, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one.w, same.w)
    assert np.std(one.w - other.w) > LEVEL / 4


def test_read_noise_has_the_variance_of_independent_devices():
    device, _ = drawn(DENSE, device=Device(linear(N), sigma_read=0.02))
    s = jax.random.normal(KEY, (12,))
    seen = jax.vmap(lambda k: device.apply(s, key=k))(jax.random.split(KEY, 20_000))
    sigma = 0.02 * W_MAX * np.sqrt(2 * np.sum(np.square(s)))  # two devices a synapse
    np.testing.assert_allclose(seen.std(0), sigma, rtol=4 / np.sqrt(2 * 20_000))
    np.testing.assert_allclose(seen.mean(0), device.apply(s), atol=5 * sigma / np.sqrt(20_000))


def test_converters_round_and_clip():
    q = Quantiser(3, 1.0)
    x = jnp.linspace(-2, 2, 401)
    assert len(np.unique(np.round(q(x), 5))) == 8
    inside = np.abs(x) <= 1
    assert np.abs(q(x) - x)[inside].max() <= 1 / 7 + 1e-6
    assert (q(x[x > 1]) == 1).all()
    assert (q(x[x < -1]) == -1).all()


def test_fine_converters_and_tiles_change_nothing_and_coarse_ones_bound_the_error():
    s = jax.random.uniform(KEY, (12,))
    plain, _ = drawn(DENSE)
    fine, _ = drawn(DENSE, dac=Quantiser(16, 1.0), adc=Quantiser(16, 4.0), rows=5)
    np.testing.assert_allclose(fine.apply(s), plain.apply(s), atol=4 * 4 / 2**16)
    np.testing.assert_allclose(fine.apply_t(jnp.ones(20)), plain.apply_t(jnp.ones(20)), atol=1e-3)
    for rows, arrays in ((None, 1), (5, 3)):
        coarse, _ = drawn(DENSE, adc=Quantiser(5, 4.0), rows=rows)
        error = np.abs(coarse.apply(s) - plain.apply(s)).max()
        assert 0 < error <= arrays * 4 / 31 * 1.001  # half a step an array


def test_drift_shrinks_the_weights_while_time_passes():
    device, _ = drawn(DENSE, device=Device(linear(N), nu=0.05, t_0=1.0), start="low")
    late = device.waited(1e4)
    G = device.pair.cells_plus.G - device.pair.cells_minus.G
    np.testing.assert_allclose(late.w, device.w * 1e4**-0.05, rtol=1e-4, atol=1e-6)
    assert G.shape == DENSE.shape


def test_a_table_serves_as_well():
    steps = table(1e-6 + 9e-6 * jnp.linspace(0, 1, N + 1))
    device, w = drawn(DENSE, device=steps)
    np.testing.assert_allclose(device.w, np.clip(w, -W_MAX, W_MAX), atol=1.01 * LEVEL)


@pytest.mark.slow
def test_the_network_learns_on_devices_by_its_weights_alone():
    x = jax.random.uniform(KEY, (8, 10))
    target = jnp.arange(8) % 2
    layer = Layer(16, LIF(tau_mem=9.5, r_mem=2.0), rule=ThreeFactor())
    loop = Recurrence(radius=3)
    net = structured(KEY, 10, [layer], 2, density=0.5, population=2, recurrence=loop)
    system = wb.System(net, {"h1": broadcast(KEY, 16, 2)}, SoftWTA(30.0, 0.0), Homeostasis())
    make = crossbar(
        Device(querlioz(N, 2.0)), Unidirectional(Single(N)), 2.0, sigma_d2d=0.1, stuck_low=0.01
    )
    tx = optax.sgd(0.5)
    state = eqx.filter_jit(lambda key: wb.init(system, tx, key, make))(KEY)
    step = eqx.filter_jit(lambda s: wb.train_step(system, tx, s, x, target)[0])
    after = state
    for _ in range(5):
        after = step(after)
    for name in net.plastic():
        held = after.weights[name]
        assert isinstance(held, Crossbar)
        assert (held.n_pulses >= state.weights[name].n_pulses).all()
        assert np.any(held.w != state.weights[name].w), name
        assert np.isfinite(held.w).all()


def test_a_change_that_is_no_number_reaches_no_conductance():
    device, w = drawn(DENSE)
    for bad in (jnp.nan, jnp.inf):
        with pytest.raises(Exception, match="dw must be finite"):
            eqx.filter_jit(lambda d, dw: d.program(dw))(device, jnp.zeros_like(w).at[0, 0].set(bad))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: drawn(DENSE)[0].program(jnp.zeros((3, 3))), r"dw must have shape \(20, 12\)"),
        (lambda: Quantiser(0, 1.0), "bits must be a whole number >= 1; got 0"),
        (lambda: Quantiser(8, -1.0), "limit must be finite and > 0"),
        (lambda: crossbar(LINEAR, POLICIES["one side"], 0.0), "w_max must be finite and > 0"),
        (
            lambda: crossbar(LINEAR, POLICIES["bidirectional"], 1.0, kind="reference"),
            "policy must be OneSide with a reference column",
        ),
        (lambda: crossbar(LINEAR, POLICIES["one side"], 1.0, rows=0), "rows must be a whole"),
        (
            lambda: crossbar(table(jnp.array([1e-6, 2e-6])), OneSide(Train(1)), 1.0, sigma_d2d=0.1),
            r"sigma_d2d, stuck_low and stuck_high must be 0 .* got 0.1, 0.0, 0.0 for a Table",
        ),
        (lambda: drawn(DENSE)[0].waited(-1.0), "seconds must be finite and >= 0 s; got -1"),
    ],
)
def test_what_cannot_be_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act()
