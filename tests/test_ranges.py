"""Parameters that are learned stay in range, and those that have left it are refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax._check import in_range

MODELS = {
    "LIF": nj.LIF(tau_mem=np.array([5.0, 20.0]), v_rest=-65.0, v_reset=-70.0, v_th=-50.0),
    "ALIF": nj.ALIF(v_reset=np.array([-0.1, 0.2]), spike=nj.surrogate.fast_sigmoid()),
    "rule": nj.ThreeFactor(kappa_e=0.3),
    "layers": {"h": nj.Layer(2, nj.LIF(t_ref=2.0), nj.Exponential(5.0))},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_has_not_moved_is_the_same(name):
    free, moved = nj.unconstrained(MODELS[name])
    assert free
    assert not any(x.any() for x in free.values())
    again = moved(free)
    assert jax.tree.structure(again) == jax.tree.structure(MODELS[name])
    for x, y in zip(jax.tree.leaves(again), jax.tree.leaves(MODELS[name]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_names_say_where_a_parameter_is():
    free, moved = nj.unconstrained(MODELS["layers"])
    assert "h.neuron.tau_mem" in free
    assert "h.synapse.tau_syn" in free
    alone = moved({"h.neuron.tau_mem": jnp.float32(1.0)})["h"]
    # exp(asinh(1 / 40)) = 1 / 40 + sqrt(1 + 1 / 1600)
    np.testing.assert_allclose(alone.neuron.tau_mem, 20 * (0.025 + 1.000625**0.5), rtol=1e-6)
    assert alone.synapse.tau_syn == 5
    with pytest.raises(ValueError, match=r"\['tau'\] are none of \['h.neuron.tau_mem', "):
        moved({"tau": jnp.float32(1.0)})


@pytest.mark.parametrize("name", MODELS)
def test_no_move_leads_out_of_range(name):
    free, moved = nj.unconstrained(MODELS[name])
    run = jax.jit(lambda by: moved({n: jnp.full_like(x, by) for n, x in free.items()}))
    for by in (-1e30, -1e5, -30.0, 0.3, 30.0, 1e5, 1e30):
        far = run(by)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(far))
        for model in far.values() if isinstance(far, dict) else [far]:
            in_range(model)  # which refuses what is not


def test_what_lies_at_the_end_of_its_range_is_left_out():
    free, _ = nj.unconstrained(nj.ALIF(beta_adapt=0.0, t_ref=0.0))
    assert not {"beta_adapt", "t_ref"} & set(free)
    assert {"tau_mem", "v_th", "v_reset"} <= set(free)


def test_great_steps_of_an_optimiser_end_at_what_was_asked_for():
    spike = nj.surrogate.triangle(1e-3)
    free, moved = nj.unconstrained(nj.LIF(tau_mem=5.0, v_th=9.0, spike=spike))
    free, tx = {n: free[n] for n in ("tau_mem", "v_th")}, optax.adam(20.0)

    def potential(neuron):
        step = lambda s, i: neuron.step(s, i, dt=1.0)  # noqa: E731
        return jax.lax.scan(step, neuron.init((1,)), jnp.ones((10, 1)))[0].v[0]

    def loss(free):
        neuron = moved(free)
        return 100 * (potential(neuron) - (1 - jnp.exp(-0.5))) ** 2 + (neuron.v_th - 5) ** 2

    def step(carry, lr):
        free, state = carry
        with jax.numpy_dtype_promotion("standard"):  # as optax needs
            updates, state = tx.update(jax.grad(loss)(free), state)
        free = optax.apply_updates(free, jax.tree.map(lambda u: lr * u, updates))
        return (free, state), moved(free).tau_mem

    (free, _), taus = jax.jit(lambda c, lr: jax.lax.scan(step, c, lr))(
        (free, tx.init(free)), 0.97 ** jnp.arange(300.0)
    )
    assert np.ptp(taus) > 5  # it has been about
    assert taus.min() > 0
    np.testing.assert_allclose(moved(free).tau_mem, 20.0, rtol=0.02)
    np.testing.assert_allclose(moved(free).v_th, 5.0, rtol=0.01)


@pytest.mark.parametrize(
    ("model", "name", "value", "match"),
    [
        (nj.LIF(), "tau_mem", -3.0, "tau_mem must be finite and > 0 ms; got -3.0"),
        (nj.LIF(), "v_th", -1.0, "v_th must be above v_reset; got -1 and 0 mV"),
        (nj.ALIF(), "tau_adapt", np.nan, "tau_adapt must be finite and > 0 ms; got nan"),
        (nj.LIF(t_ref=2.0), "t_ref", -1.0, "t_ref must be finite and >= 0 ms; got -1.0"),
        (nj.LeakyIntegrator(), "r_mem", 0.0, "r_mem must be finite and > 0 MOhm; got 0.0"),
        (nj.Exponential(5.0), "tau_syn", -3.0, "tau_syn must be finite and > 0 ms; got -3.0"),
        (nj.Alpha(5.0), "tau_syn", -3.0, "tau_syn must be finite and > 0 ms; got -3.0"),
    ],
)
def test_a_parameter_that_has_left_its_range_is_refused_at_the_next_step(model, name, value, match):
    state, x = model.init((2,)), jnp.zeros(2)
    gone = eqx.tree_at(lambda m: getattr(m, name), model, jnp.float32(value))
    with pytest.raises(ValueError, match=match):
        gone.step(state, x, dt=1.0)
    with pytest.raises(ValueError, match=match):
        gone.init((2,))
    with pytest.raises(ValueError, match=match):
        jax.jit(lambda s: gone.step(s, x, dt=1.0))(state)


def test_a_slope_and_a_rule_that_have_left_their_range_are_refused():
    neuron = nj.LIF(spike=nj.surrogate.fast_sigmoid())
    gone = eqx.tree_at(lambda m: m.spike.slope, neuron, jnp.float32(-1.0))
    with pytest.raises(ValueError, match="slope must be finite and > 0 1/mV; got -1.0"):
        gone.init((2,))
    rule, c = nj.STDP(), nj.Dense(2, 2)
    gone = eqx.tree_at(lambda m: m.tau_plus, rule, jnp.float32(-1.0))
    with pytest.raises(ValueError, match="tau_plus must be finite and > 0 ms; got -1.0"):
        gone.visit(rule.init(c), jnp.ones(2), jnp.ones(2), dt=1.0)
