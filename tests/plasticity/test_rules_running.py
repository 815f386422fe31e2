"""Every rule in a network that learns while it runs, on every layout, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.visits import visit_dense

import neurojax as nj

N_PRE, N_POST, T = 6, 5, 60
RNG = np.random.default_rng(0)
X, Y = ((RNG.random((T, n)) < 0.25).astype(np.float32) for n in (N_PRE, N_POST))
PRE, POST = np.nonzero(RNG.random((N_PRE, N_POST)) < 0.6)
W = RNG.uniform(0.1, 0.4, len(PRE)).astype(np.float32)
SOFT = nj.WeightDependence(0.5, 0.5, w_max=0.5)
RULES = {
    "pairs": nj.STDP(0.04, 0.05, 5.0, 8.0),
    "nearest pairs": nj.STDP(0.04, 0.05, 5.0, 8.0, pairing="nearest"),
    "pairs that see weights": nj.STDP(0.04, 0.05, 5.0, 8.0, dependence=SOFT),
    "triplets": nj.TripletSTDP(0.01, 0.04, 0.02, 0.04, 20.0, 30.0, 5.0, 8.0),
    "nearest triplets that see weights": nj.TripletSTDP(
        0.03, 0.06, 0.04, 0.06, 20.0, 30.0, 5.0, 8.0, pairing="nearest", dependence=SOFT
    ),
    "inhibition": nj.InhibitorySTDP(0.05, rho_0=30.0, tau=5.0),
}
LISTED, LISTED_W = nj.by_sender(PRE, POST, N_PRE, N_POST, W)
FULL_W = np.zeros((N_POST, N_PRE), np.float32)
FULL_W[POST, PRE] = W
LAYOUTS = {
    "events": (LISTED.with_columns(), LISTED_W),
    "matrix": (nj.Dense(N_PRE, N_POST, (FULL_W > 0).astype(int)), FULL_W),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", RULES)
def test_weights_after_a_run_are_those_of_visits_one_by_one(kind, layout):
    rule, bounds, (wiring, w) = RULES[kind], (0.0, 0.45), LAYOUTS[layout]
    force = 1e3 * jnp.eye(N_POST)  # receivers fire where they are told to
    net = nj.Network(
        {"post": nj.Layer(N_POST, nj.LIF(0.01, v_th=500.0))},
        {
            "told": nj.Projection("y", "post", nj.Dense(N_POST, N_POST), w=force, plastic=False),
            "learns": nj.Projection("x", "post", wiring, w=w, rule=rule),
        },
    )
    hold = nj.ideal(bounds=bounds)
    make = lambda w, c, key: (hold if c is wiring else nj.ideal())(w, c, key)  # noqa: E731
    start = net.init_weights(jax.random.key(0), make)
    end, _, z = nj.simulate(net, start, net.init(), {"x": X, "y": Y}, n_steps=T, dt=1.0, learn=True)
    np.testing.assert_array_equal(z["post"], Y)
    expected, state = np.asarray(w, float), rule.init(wiring)
    visit = jax.jit(lambda s, x, y: rule.visit(s, x, y, dt=1.0))
    for x, y in zip(X, Y, strict=True):
        state, visits = visit(state, jnp.asarray(x), jnp.asarray(y))
        expected = visit_dense(expected, wiring, visits, bounds)
    exists = np.asarray(w) > 0
    assert np.abs(expected - w)[exists].max() > 0.05
    np.testing.assert_allclose(np.asarray(end["learns"].w)[exists], expected[exists], atol=2e-6)
