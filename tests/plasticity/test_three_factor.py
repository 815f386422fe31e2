"""Three-factor rules against sums written out, against gradients, and for locality."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import connectivity as wiring
from oracles.wta_broadcast import weight_change

import neurojax as nj
from neurojax.neurons import surrogate
from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator
from neurojax.plasticity.three_factor import (
    Homeostasis,
    HomeostasisState,
    Post,
    ThreeFactor,
    always,
    boxcar,
    post_spike,
    triangle,
)

T, N, DT = 11, 45, 0.6

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

TAU = np.linspace(2.0, 12.0, N)
NEURONS = {
    "LIF": LIF(tau_mem=TAU),
    "ALIF": ALIF(tau_mem=6.0, tau_adapt=TAU * 3, beta_adapt=0.4),
    "leaky integrator": LeakyIntegrator(tau_mem=4.0),
}
RULES = {
    "kept": (ThreeFactor(0.9, reset_trace=False), "LIF"),
    "cleared": (ThreeFactor(0.9, reset_trace=True), "LIF"),
    "cleared, adapting": (ThreeFactor(0.9), "ALIF"),
    "own decay, adapting": (ThreeFactor(0.5, decay=0.7, reset_trace=False), "ALIF"),
    "at once": (ThreeFactor(0.0, decay=0.0, reset_trace=False), "LIF"),
    "delta rule": (ThreeFactor(0.0, reset_trace=False), "leaky integrator"),
}
# Every rule on one wiring in double precision, and every wiring under one rule in single.
CASES = pytest.mark.parametrize(
    ("name", "kind", "x64"),
    [(name, "many links", True) for name in RULES]
    + [("cleared, adapting", kind, False) for kind in wiring.KINDS],
)


def records(seed, n_pre=N):
    """What a presentation leaves behind: presynaptic spikes, window, spikes, third factor."""
    rng = np.random.default_rng(seed)
    pre, z = (rng.random((T, n)) < 0.3 for n in (n_pre, N))
    h, q = np.maximum(0, rng.normal(size=(T, N))), rng.normal(size=(T, N))
    return [jnp.asarray(x, float) for x in (pre, h, z, q)]


@quick
def both_forms(rule, neuron, connectivity, pre, h, z, q):
    """Changes by the factorised form, and by the one that goes step by step."""

    def step(carry, now):
        state, dw = carry
        pre, h, z, q = now
        state, asked = rule.step(state, connectivity, neuron, pre, Post(h, z), q, dt=DT)
        return (state, dw + asked), None

    start = rule.init(connectivity, q.dtype), jnp.zeros(connectivity.shape, q.dtype)
    online = jax.lax.scan(step, start, (pre, h, z, q))[0][1]
    return connectivity.outer(rule.factor(neuron, Post(h, z), q, dt=DT), pre), online


def factorised(*arguments):
    return both_forms(*arguments)[0]


def case(name, kind):
    rule, neuron = RULES[name]
    model = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), (rule, NEURONS[neuron]))
    return *model, wiring.example(kind)


def written_out(rule, neuron, connectivity, pre, h, z, q):
    rows, columns, count = wiring.synapses(connectivity)
    exists = np.zeros((connectivity.n_post, connectivity.n_pre), bool)
    exists[rows[count > 0], columns[count > 0]] = True
    adapting = isinstance(neuron, ALIF)
    full = weight_change(
        *(np.asarray(x, np.float64) for x in (pre, h, z, q)), exists,
        kappa_e=float(rule.kappa_e), reset_trace=rule.reset_trace,
        decay=np.exp(-DT / np.asarray(neuron.tau_mem)) if rule.decay is None else float(rule.decay),
        rho=np.exp(-DT / np.asarray(neuron.tau_adapt)) if adapting else 0.0,
        beta=np.asarray(neuron.beta_adapt) if adapting else 0.0,
    )  # fmt: skip
    return wiring.stored(connectivity, full)


@CASES
def test_factorised_and_online_forms_are_the_sums_written_out(name, kind, x64):
    with jax.enable_x64(x64):
        arguments = (*case(name, kind), *records(0))
        expected = written_out(*arguments)
        scale = np.abs(expected).max()
        for found in both_forms(*arguments):
            np.testing.assert_allclose(found / scale, expected / scale, atol=1e-12 if x64 else 1e-5)


SINGLE = st.floats(0, 1, width=32, allow_subnormal=False)  # what is 0 in float32 is refused


@given(seed=st.integers(0, 2**31 - 1), kappa_e=SINGLE, decay=SINGLE)
def test_both_forms_agree_for_any_memory(seed, kappa_e, decay):
    rule = ThreeFactor(kappa_e, decay)
    arguments = (rule, NEURONS["ALIF"], wiring.example("few links"), *records(seed))
    one, other = both_forms(*arguments)
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def test_without_memory_each_step_counts_alone():
    rule, neuron = RULES["at once"]
    pre, h, z, q = records(1)
    dw = factorised(rule, NEURONS[neuron], wiring.example("dense"), pre, h, z, q)
    np.testing.assert_allclose(dw, np.einsum("ti,tj->ij", h * q, pre), rtol=1e-5, atol=1e-6)


def test_a_batch_is_summed_in_one_product():
    rule, neuron = ThreeFactor(0.9), NEURONS["LIF"]
    many = [jnp.stack(x, axis=1) for x in zip(*(records(s) for s in range(3)), strict=True)]
    c = wiring.example("band")

    @quick
    def batch(pre, h, z, q):
        factor = lambda h, z, q: rule.factor(neuron, Post(h, z), q, dt=DT)  # noqa: E731
        return c.outer(jax.vmap(factor, 1, 1)(h, z, q), pre)

    alone = sum(np.asarray(factorised(rule, neuron, c, *records(s))) for s in range(3))
    np.testing.assert_allclose(batch(*many), alone, atol=1e-5 * np.abs(alone).max())


@CASES
def test_an_update_sees_nothing_of_other_neurons(name, kind, x64):
    with jax.enable_x64(x64):
        arguments, (pre, *own) = case(name, kind), records(2)
        rows, columns, count = wiring.synapses(arguments[2])
        i = 7
        j = columns[(rows == i) & (count > 0)][0]
        mine = (rows == i) & (columns == j)
        # no record, instead of another: nothing that touches it stays finite
        only_i = [jnp.full_like(x, jnp.nan).at[:, i].set(x[:, i]) for x in own]
        only_j = jnp.full_like(pre, jnp.nan).at[:, j].set(pre[:, j])
        full, poisoned = both_forms(*arguments, pre, *own), both_forms(*arguments, only_j, *only_i)
        for with_others, alone in zip(
            map(np.asarray, full), map(np.asarray, poisoned), strict=True
        ):
            assert np.all(with_others[mine] != 0)
            assert alone[mine].tobytes() == with_others[mine].tobytes()
            assert np.isnan(alone[(rows != i) & (count > 0)]).all()


@pytest.mark.parametrize("changed", range(4))
def test_an_update_depends_on_each_of_its_own_factors(changed):
    c = wiring.example("dense")
    parts = records(3)
    before = factorised(ThreeFactor(0.9), NEURONS["LIF"], c, *parts)
    parts[changed] = parts[changed].at[2, 5].add(1.0)
    after = factorised(ThreeFactor(0.9), NEURONS["LIF"], c, *parts)
    moved = np.asarray(before != after)
    other = np.delete(moved, 5, axis=1 if changed == 0 else 0)
    assert moved.any()
    assert not other.any()


@pytest.mark.parametrize("neuron", [LIF, ALIF])
@pytest.mark.usefixtures("x64")
def test_without_recurrence_the_rule_is_the_gradient(neuron):
    """With its readout's own weights fed back, and a reset of nothing, which no rule follows.

    The loss is the cross-entropy of softmax(y) at every step; Bellec et al. (2020), eq. 1.
    """
    rng = np.random.default_rng(0)
    n_in, n, classes, kappa = 6, 8, 3, 0.8
    x, w = (jnp.asarray(rng.normal(size=s) * 2) for s in ((15, n_in), (n, n_in)))
    w_out = jnp.asarray(rng.normal(size=(classes, n)))
    target = jax.nn.one_hot(1, classes, dtype=float)
    shared = dict(tau_mem=5.0, v_reset=1 - 1e-14, reset="subtract", spike=surrogate.triangle(1.0))
    model = neuron(**shared)

    def run(w):
        def step(carry, x):
            state, y = carry
            state, z = model.step(state, w @ x, dt=1.0)
            y = kappa * y + w_out @ z
            return (state, y), (y, Post(window(state), z))

        def window(state):
            h = triangle(1.0)(state.v, model.threshold(state), state.z)
            return jax.lax.stop_gradient(h)

        start = model.init((n,), float), jnp.zeros(classes)
        _, (y, post) = jax.lax.scan(step, start, x)
        return -jnp.sum(target[None] * jax.nn.log_softmax(y)), (y, post)

    gradient, (y, post) = quick(jax.grad(run, has_aux=True))(w)
    assert 0.05 < post.z.mean() < 0.7
    q = (target[None] - jax.nn.softmax(y)) @ w_out
    rule = ThreeFactor(kappa_e=kappa, reset_trace=False)
    dw = rule.factor(model, post, q, dt=1.0).T @ x
    charge = -np.expm1(-1 / 5.0)  # of the membrane in one step, which the trace leaves out
    np.testing.assert_allclose(charge * dw, -gradient, rtol=1e-9, atol=1e-12)


def test_spikes_of_a_byte_teach_as_those_that_are_floats_do():
    rng = np.random.default_rng(4)
    z, pre = rng.random((2, 12, 4)) < 0.4
    q, rule = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32), ThreeFactor(window=nj.post_spike)
    given = [(jnp.asarray(z), jnp.asarray(pre)), (jnp.asarray(z, q.dtype), jnp.asarray(pre, float))]
    d = [rule.factor(nj.LIF(), Post(z, z), q, dt=1.0) for z, _ in given]
    np.testing.assert_array_equal(*d)
    assert (d[0] != 0).any()
    wiring = nj.by_sender(np.arange(16) // 4, np.arange(16) % 4, 4, 4)
    weights = nj.Ideal(jnp.zeros(16), wiring)
    w = [nj.taught(weights, d[0], pre).w for _, pre in given]
    np.testing.assert_array_equal(*w)
    np.testing.assert_allclose(w[0].reshape(4, 4), pre.T.astype(float) @ d[0], rtol=1e-5, atol=1e-6)


def test_windows_are_what_they_say():
    v, theta = jnp.linspace(-1.0, 3.0, 9), jnp.full(9, 1.0)
    z = (v >= theta).astype(float)
    away = np.abs(np.asarray(v) - 1.0)
    np.testing.assert_allclose(triangle()(v, theta, z), np.maximum(0, 1 - away))
    np.testing.assert_allclose(triangle(2.0)(v, theta, z), np.maximum(0, 1 - away / 2))
    np.testing.assert_array_equal(boxcar()(v, theta, z), away <= 0.5)
    np.testing.assert_array_equal(always(v, theta, z), np.ones(9))
    np.testing.assert_array_equal(post_spike(v, theta, z), z)
    wide = jax.vmap(lambda width: triangle(width)(v, theta, z))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(wide[1], np.maximum(0, 1 - away / 2))


@pytest.mark.parametrize("window", [triangle(0.5), boxcar(0.5), always, post_spike])
def test_windows_keep_the_type_of_the_potential(window):
    with jax.enable_x64(True):
        for dtype in ("bfloat16", "float32", "float64"):
            v = jnp.zeros(3, dtype)
            assert jax.eval_shape(window, v, v, v).dtype == dtype


def test_windows_of_truths_are_floats_and_of_nothing_are_refused():
    truths = jnp.array([True, False])
    for window, expected in ((always, [1, 1]), (post_spike, [1, 0])):
        h = window(truths, truths, truths)
        assert h.dtype == "float32"
        np.testing.assert_array_equal(h, expected)
    with pytest.raises(ValueError, match="z must be finite; got NaN or infinity"):
        post_spike(jnp.ones(1), jnp.ones(1), jnp.array([jnp.nan]))


def test_one_number_for_all_neurons_is_that_of_each():
    c, each = wiring.example("dense"), jnp.ones(N)
    alike = ALIF(tau_mem=6.0 * each, tau_adapt=18.0 * each, beta_adapt=0.4 * each)
    one = ALIF(tau_mem=6.0, tau_adapt=18.0, beta_adapt=0.4)
    for found, expected in zip(
        *(both_forms(ThreeFactor(0.9), n, c, *records(8)) for n in (one, alike)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [0.3, 3.0])
def test_homeostasis_brings_every_neuron_to_its_target_rate(start):
    rule = Homeostasis(target=0.1, rate=3.0)
    noise = np.random.default_rng(0).normal(1.0, 2.0, (80, 200, N))
    current = jnp.asarray(noise * np.linspace(0.5, 3.0, N), float)  # too weak, and too strong

    def batch(state, current):
        model = LIF(tau_mem=5.0, v_th=state.v_th, v_reset=-1.0)
        step = lambda s, i: model.step(s, i, dt=1.0)  # noqa: E731
        r = jax.lax.scan(step, model.init((N,), float), current)[1].mean(0)
        return rule.step(state, r), r

    run = quick(lambda state: jax.lax.scan(batch, state, current)[1])
    r = np.asarray(run(rule.init(jnp.full(N, start))))
    assert np.abs(r[0] - 0.1).mean() > 0.03
    # the mean of 20 batches of 200 steps: 4 standard errors are 4 sqrt(.09 / 4000) = .02
    np.testing.assert_allclose(r[-20:].mean(0), 0.1, atol=0.02)


def test_homeostasis_moves_by_the_difference_and_never_below_its_floor():
    rule = Homeostasis(target=0.05, rate=0.5, v_min=0.2, penalty=0.1)
    state = rule.init(jnp.array([1.0, 0.21]))
    new = rule.step(state, jnp.array([0.25, 0.0]), 0.5)
    np.testing.assert_allclose(new.v_th, [1.0 + 0.5 * 0.5 * 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(rule.term(state), 0, atol=1e-8)
    np.testing.assert_allclose(rule.term(new), [-0.1 * 0.2, 0.1 * 0.05], rtol=1e-5)
    assert isinstance(new, HomeostasisState)


@pytest.mark.parametrize("v_reset", [-65.0, [-65.0, -65.0, -50.3], None])
def test_homeostasis_counts_its_floor_from_the_reset(v_reset):
    rule = Homeostasis(target=0.05, rate=10.0, v_min=0.2)
    state = rule.init(jnp.full(3, -50.0))
    reset = jnp.asarray(v_reset) if np.ndim(v_reset) else v_reset
    step = functools.partial(rule.step, v_reset=reset)
    np.testing.assert_array_equal(step(state, jnp.full(3, 0.05)).v_th, -50.0)
    moved = step(state, jnp.array([0.15, 0.0, 0.0])).v_th
    floor = -50.1 if np.ndim(v_reset) else -50.5  # that of the last is hit where it is near
    np.testing.assert_allclose(moved, [-49.0, -50.5, floor], rtol=1e-6)


def test_a_threshold_below_the_floor_stays_and_sinks_no_further():
    rule = Homeostasis(v_min=0.2)
    sunk = rule.step(rule.init(jnp.zeros(1)), jnp.zeros(1))  # for 0 mV none is known
    np.testing.assert_allclose(sunk.v_th, -0.5 * 0.05, rtol=1e-6)
    for v_reset in (0.0, None):
        moved = rule.step(rule.init(jnp.full(3, 0.1)), jnp.array([0.05, 0, 1]), v_reset=v_reset)
        np.testing.assert_allclose(moved.v_th, [0.1, 0.1, 0.1 + 0.5 * 0.95], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_states_of_half_precision_are_calculated_in_float32_and_rounded_once(dtype):
    wide = lambda tree: jax.tree.map(lambda x: x.astype("float32"), tree)  # noqa: E731
    narrow = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)  # noqa: E731
    rule, neuron, c = ThreeFactor(0.9), NEURONS["ALIF"], wiring.example("dense")
    pre, h, z, q = narrow(records(4))

    @quick
    def factor(h, z, q):
        return rule.factor(neuron, Post(h, z), q, dt=DT)

    @quick
    def step(state, pre, h, z, q):
        return rule.step(state, c, neuron, pre, Post(h, z), q, dt=DT)

    found = factor(h, z, q)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, narrow(factor(*wide((h, z, q)))))
    state = rule.init(c, dtype)
    for t in range(3):
        now = (pre[t], h[t], z[t], q[t])
        expected = narrow(step(wide(state), *wide(now)))
        state, dw = step(state, *now)
        jax.tree.map(np.testing.assert_array_equal, (state, dw), expected)
    tone = Homeostasis(rate=0.3, penalty=0.1)
    start, r = narrow(HomeostasisState(jnp.linspace(0.9, 1.1, N), q[0] * 0)), narrow(abs(q[1]))
    moved = tone.step(start, r, 0.3, v_reset=0.1)
    expected = narrow(tone.step(wide(start), wide(r), 0.3, v_reset=0.1))
    jax.tree.map(np.testing.assert_array_equal, moved, expected)


def test_spikes_and_windows_may_be_bools():
    rule, neuron, c = ThreeFactor(0.9), NEURONS["LIF"], wiring.example("dense")
    pre, h, z, q = records(5)
    expected = both_forms(rule, neuron, c, pre, z, z, q)
    b = z.astype(bool)
    for found, right in zip(both_forms(rule, neuron, c, pre, b, b, q), expected, strict=True):
        np.testing.assert_array_equal(found, right)
    state = rule.step(rule.init(c), c, neuron, pre[0].astype(bool), Post(b[0], b[0]), q[0], dt=DT)
    right = rule.step(rule.init(c), c, neuron, pre[0], Post(z[0], z[0]), q[0], dt=DT)
    jax.tree.map(np.testing.assert_array_equal, state, right)


@pytest.mark.parametrize("make", [ThreeFactor, lambda x: ThreeFactor(decay=x)])
def test_memories_are_swept_by_vmap(make):
    pre, h, z, q = records(6)
    factor = lambda x: make(x).factor(NEURONS["ALIF"], Post(h, z), q, dt=DT)  # noqa: E731
    swept = quick(jax.vmap(factor))(jnp.array([0.2, 0.8]))
    for x, found in zip((0.2, 0.8), swept, strict=True):
        np.testing.assert_allclose(found, quick(lambda x=x: factor(x))(), rtol=1e-5, atol=1e-6)
    assert np.abs(swept[0] - swept[1]).max() > 0.01


def test_refuses_records_of_other_shapes_and_steps_of_no_time():
    pre, h, z, q = records(7)
    rule, neuron, c = ThreeFactor(), NEURONS["LIF"], wiring.example("dense")
    for post, third in ((Post(h[0], z), q), (Post(h, z[:5]), q), (Post(h[0], z[0]), q[0])):
        with pytest.raises(ValueError, match=r"h, z and q must all be \[T, n\]; got .* a batch"):
            inspect.unwrap(ThreeFactor.factor)(rule, neuron, post, third, dt=DT)
    with pytest.raises(ValueError, match=r"h, z and q must all be \[n\]; got"):
        inspect.unwrap(ThreeFactor.step)(rule, rule.init(c), c, neuron, pre, Post(h, z), q, dt=DT)
    for one in (rule, ThreeFactor(decay=0.5)):  # that asks the neuron for a decay, and does not
        for dt in (0.0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="dt must be finite and > 0 ms"):
                one.factor(neuron, Post(h, z), q, dt=dt)
            with pytest.raises(ValueError, match="dt must be finite and > 0 ms"):
                one.step(one.init(c), c, neuron, pre[0], Post(h[0], z[0]), q[0], dt=dt)


def test_rules_made_in_double_precision_follow_records_in_single(x64):
    h, z, q = (x.astype("float32") for x in records(7)[1:])
    rule, homeostasis = ThreeFactor(0.9, decay=0.5), Homeostasis(penalty=2.0)
    assert rule.kappa_e.dtype == homeostasis.penalty.dtype == "float64"
    assert rule.factor(NEURONS["LIF"], Post(h, z), q, dt=DT).dtype == "float32"
    state = homeostasis.init(jnp.ones(N, "float32"))._replace(r=jnp.full(N, 0.3, "float32"))
    wide = jnp.asarray(0.5, float)
    moved = homeostasis.step(state, state.r, wide, v_reset=wide)
    assert {x.dtype for x in moved} == {jnp.dtype("float32")}
    with pytest.raises(ValueError, match="roadcast"):
        homeostasis.step(jax.tree.map(lambda x: x[:1], state), state.r[:1], jnp.ones(N))
    told = homeostasis.term(state)
    assert told.dtype == "float32"
    np.testing.assert_allclose(told, -2.0 * (0.3 - 0.05), rtol=1e-6)
