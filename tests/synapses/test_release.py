"""Release at the sender, against published tables, the recursion by spikes, and SciPy."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

import neurojax as nj
from neurojax.synapses.release import NMDAGate, Quantal, TsodyksMarkram

# depression alone; facilitation first (Tsodyks, Pawelzik and Markram 1998, fig. 1 and 2)
CELLS = {"U": [0.5, 0.03], "tau_rec": [800.0, 130.0], "tau_fac": [0.0, 530.0]}
RELEASES = [[0.5, 0.2651, 0.1548, 0.1030, 0.0787], [0.03, 0.0553, 0.0757, 0.0918]]


def model(kind=TsodyksMarkram, **parameters):
    return kind(**{n: jnp.asarray(x, float) for n, x in CELLS.items()} | parameters)


@eqx.filter_jit
def run(release, state, z, dt):
    """All that is sent [T, n], and the state at the end."""
    return jax.lax.scan(lambda s, z: release.step(s, z, dt=dt), state, z)


def sent(release, z, dt, dtype=float):
    z = jnp.asarray(z, dtype)
    return np.asarray(run(release, release.init(z.shape[1:], dtype), z, jnp.asarray(dt, float))[1])


@pytest.mark.parametrize("dt", [0.5, 5.0, 50.0])
def test_releases_at_20_hz_are_those_of_the_table(dt):
    every = round(50 / dt)
    z = np.zeros((80 * every, 2))
    z[::every] = 1
    at_spikes = sent(model(), z, dt)
    assert not at_spikes[z == 0].any()
    at_spikes = at_spikes[::every]
    for n, table in enumerate(RELEASES):
        np.testing.assert_allclose(at_spikes[: len(table), n], table, atol=5e-5)
    for n, (big_u, rec, fac) in enumerate(zip(*CELLS.values(), strict=True)):
        raised = math.exp(-50 / fac) if fac else 0.0  # steady state of eqs. 4 and 5
        u = big_u / (1 - (1 - big_u) * raised)
        x = (1 - math.exp(-50 / rec)) / (1 - (1 - u) * math.exp(-50 / rec))
        np.testing.assert_allclose(at_spikes[-1, n], u * x, rtol=1e-3)


def by_spikes(big_u, rec, fac, psc, times):
    """From spike to spike, as NEST does it: what each sends."""
    u = z = y = 0.0
    before, out = times[0], []
    for t in times:
        gap, before = t - before, t
        u *= math.exp(-gap / fac) if fac else 0.0
        if psc is None:
            z *= math.exp(-gap / rec) if rec else 0.0
        elif not rec:
            y, z = y * math.exp(-gap / psc), 0.0
        else:
            rates = np.array([[-1 / psc, 0], [1 / psc, -1 / rec]])
            q = scipy.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0]
            y, z = q.T @ scipy.linalg.expm(q @ rates @ q.T * gap) @ q @ [y, z]
        u += big_u * (1 - u)
        out.append(u * (1 - y - z))
        y, z = (y + out[-1], z) if psc is not None else (y, z + out[-1])
    return out


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("psc", [None, (3.0, 20.0, 800.0, 130.0, 3.0, 3.0)])
def test_every_release_is_that_of_the_recursion_by_spikes(psc):
    cells = {
        "U": (0.5, 0.03, 0.6, 0.2, 1.0, 0.0),
        "tau_rec": (800.0, 20.0, 800.0, 130.00001, 0.0, 10.0),  # also that of tau_psc, and near
        "tau_fac": (0.0, 530.0, 1000.0, 5.0, 20.0, 20.0),
    }
    z = np.random.default_rng(0).random((400, 6)) < 0.1
    given = cells if psc is None else cells | {"tau_psc": psc}
    found = sent(model(**given), z, 2.0)
    for n in range(6):
        times = 2.0 * np.flatnonzero(z[:, n])
        expected = by_spikes(*(cells[k][n] for k in cells), None if psc is None else psc[n], times)
        np.testing.assert_allclose(found[z[:, n], n], expected, rtol=1e-11, atol=1e-14)
        assert not found[~z[:, n], n].any()


def test_silence_is_exact_in_long_runs_in_every_type():
    tau = jnp.array([1e4, 1e5, 1e6])  # 10 s to 1,000 s; 100,000 steps of 0.1 ms are 10 s
    release = TsodyksMarkram(U=0.5, tau_rec=tau, tau_fac=tau, tau_psc=tau / 2)

    @functools.partial(jax.jit, static_argnums=0)
    def long(dtype):
        state = release.step(release.init((3,), dtype), jnp.ones(3, dtype), dt=0.1)[0]
        quiet = lambda _, s: release.step(s, jnp.zeros(3, dtype), dt=0.1)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 100_000, quiet, state)

    for dtype in ("bfloat16", "float32"):
        s = long(dtype)
        t, taus = 1e4, np.asarray(tau, float)
        u, y, z = (
            np.asarray(x, float) + np.asarray(low, float)
            for x, low in ((s.u, s.u_low), (s.y, s.y_low), (s.z, s.z_low))
        )
        np.testing.assert_allclose(u, 0.5 * np.exp(-t / taus), rtol=1e-6)
        np.testing.assert_allclose(y, 0.5 * np.exp(-2 * t / taus), rtol=1e-6)
        np.testing.assert_allclose(
            z, np.exp(-t / taus) - np.exp(-2 * t / taus), rtol=1e-6
        )  # the convolution of both decays
        np.testing.assert_allclose(s.x.astype(float), 1 - y - z, atol=2**-7)


@pytest.mark.usefixtures("x64")
def test_gradients_are_finite_and_right_where_time_constants_meet_or_vanish():
    z = jnp.zeros((12, 3)).at[::3].set(1.0)

    @jax.jit
    def total(p):
        release = eqx.tree_at(lambda m: (m.U, m.tau_rec, m.tau_fac, m.tau_psc), LIKE, tuple(p))
        _, out = run(release, release.init((3,)), z, jnp.asarray(5.0))
        return out.sum()

    p = [[0.5, 0.3, 0.2], [20.0, 20.0, 30.0], [0.0, 40.0, 20.0], [20.0, 3.0, 30.0]]
    p = [jnp.array(x) for x in p]
    slopes = jax.grad(total)(p)
    for k in range(4):
        for n in range(3):
            if p[k][n] == 0:  # it does not move with what is not there
                assert slopes[k][n] == 0
                continue
            h = 1e-4 * p[k][n]
            up, down = (total([*p[:k], p[k].at[n].add(x), *p[k + 1 :]]) for x in (h, -h))
            np.testing.assert_allclose(slopes[k][n], (up - down) / (2 * h), rtol=1e-5, atol=1e-9)


LIKE = TsodyksMarkram(tau_psc=1.0)


@eqx.filter_jit
def drawn(release, z, key):
    """All that is sent [T, n] by senders that share their spikes z [T]."""

    def step(state, now):
        t, z = now
        return release.step(state, z, dt=10.0, key=jax.random.fold_in(key, t))

    n, state = 4000, release.init((4000,))
    z = jnp.broadcast_to(z[:, None], (len(z), n))
    return jax.lax.scan(step, state, (jnp.arange(len(z)), z))[1]


@pytest.mark.parametrize("n_sites", [1, 5])
def test_the_mean_release_by_chance_is_that_of_the_deterministic_one(n_sites):
    z = np.zeros(60)
    z[[0, 5, 10, 12, 13, 30, 59]] = 1
    for n in range(2):
        cell = {k: jnp.asarray(x[n]) for k, x in CELLS.items()}
        out = np.asarray(drawn(Quantal(n_sites, **cell), jnp.asarray(z, float), KEY))
        fired = out[z > 0]
        assert not out[z == 0].any()
        quanta = fired * n_sites
        np.testing.assert_allclose(quanta, np.round(quanta), atol=1e-5)
        expected = sent(TsodyksMarkram(**cell), z[:, None], 10.0)[z > 0, 0]
        error = np.sqrt(expected * (1 - expected) / n_sites / out.shape[1])
        assert np.all(np.abs(fired.mean(1) - expected) < 4 * error)
        first = (
            CELLS["U"][n] * (1 - CELLS["U"][n]) / n_sites
        )  # binomial; 4 standard errors of a variance
        kurtosis = 1 / first / n_sites**2 + 3
        assert abs(fired[0].var() / first - 1) < 4 * math.sqrt(kurtosis / out.shape[1])


KEY = jax.random.key(3)


def test_certain_sites_release_all_and_fill_one_by_one():
    release = Quantal(n_sites=3, U=1.0, tau_rec=20.0)
    z = jnp.array([1.0, 1.0, 0.0, 1.0])
    out = np.asarray(drawn(release, z, KEY))
    np.testing.assert_array_equal(out[0], 1.0)  # all of them, and then those filled since
    for t, gap in ((1, 10.0), (3, 20.0)):
        chance = 1 - math.exp(-gap / 20.0)
        counts = np.bincount(np.round(3 * out[t]).astype(int), minlength=4) / out.shape[1]
        expected = [math.comb(3, k) * chance**k * (1 - chance) ** (3 - k) for k in range(4)]
        np.testing.assert_allclose(counts, expected, atol=4 * 0.5 / math.sqrt(out.shape[1]))
    assert not np.asarray(drawn(Quantal(n_sites=3, U=0.0), z, KEY)).any()


def exactly(t, spikes, tau_rise=2.0, tau_decay=100.0, alpha=0.5):
    """s at times `t` and its integral up to each, piece by piece between spikes."""

    def slope(_, y):
        return [alpha * y[1] * (1 - y[0]) - y[0] / tau_decay, -y[1] / tau_rise, y[0]]

    out, y = [], np.zeros(3)
    for start, end in zip(spikes, [*spikes[1:], t[-1]], strict=True):
        y = y + np.array([0, 1.0, 0])
        at = t[(t > start) & (t <= end)]
        answer = scipy.integrate.solve_ivp(
            slope, (start, end), y, "DOP853", at, rtol=1e-12, atol=1e-13
        )
        out += list(answer.y[::2].T)
        y = answer.y[:, -1]
    return np.array(out).T


@pytest.mark.usefixtures("x64")
def test_nmda_gate_is_second_order_and_saturates():
    gate, spikes, off = NMDAGate(), [0.0, 4.0, 8.0, 12.0], []
    follow = jax.jit(
        lambda z, dt: jax.lax.scan(
            lambda state, z: (lambda new, mean: (new, (new.s, mean)))(*gate.step(state, z, dt=dt)),
            gate.init((1,)), z,
        )[1]
    )  # fmt: skip
    for dt in (0.4, 0.2, 0.1):
        t = dt * np.arange(round(40 / dt) + 1)  # a spike of the step that ends at t_k acts then
        s, mean = follow(jnp.asarray(np.isin(t, spikes)[:, None], float), dt)
        exact, integral = exactly(t[1:], spikes)
        means = np.diff(integral, prepend=0) / dt
        off.append([np.abs(s[1:, 0] - exact).max(), np.abs(mean[1:, 0] - means).max()])
    off = np.array(off)
    np.testing.assert_allclose(np.log2(off[:-1] / off[1:]), 2, atol=0.15)
    assert np.all(off[-1] < 3e-4)
    assert np.all(np.asarray(s) < 1)


@pytest.mark.parametrize(("dt", "peak"), [(0.1, 0.59184), (0.5, 0.59189), (1.0, 0.59207)])
def test_one_spike_opens_three_fifths_of_the_nmda_channels(dt, peak):
    gate = NMDAGate()
    z = jnp.zeros((200, 1)).at[0].set(1.0)

    def step(state, z):
        state, _ = gate.step(state, z, dt=dt)
        return state, state.s

    _, s = jax.lax.scan(step, gate.init((1,)), z)
    np.testing.assert_allclose(np.max(s), peak, atol=6e-6)
    assert np.max(s) < 1 - math.exp(-0.5 * 2.0)


@pytest.mark.usefixtures("x64")
def test_an_nmda_synapse_in_a_network_follows_its_equations():
    """Gate at the sender, block at the receiver; the block sees a potential a step old."""
    tau, r, w, spikes, off = 20.0, 100.0, 0.05, [0.0, 6.0], []  # ms, MOhm, uS
    port = nj.Conductance(None, 0.0, nj.MagnesiumBlock())
    layer = nj.Layer(1, nj.LIF(tau, r, v_th=1e3, v_rest=-65.0, v_reset=-65.0), ports={"n": port})
    wire = nj.Projection("x", "h", nj.Dense(1, 1), port="n", release=NMDAGate(), w=[[w]])
    net = nj.Network({"h": layer}, {"wire": wire})

    def slope(_, y):
        s, x, v = y
        g = w * s / (1 + np.exp(-0.062 * v) / 3.57)
        return [0.5 * x * (1 - s) - s / 100, -x / 2, (-65 - v - r * g * v) / tau]

    y = np.array([0.0, 0.0, -65.0])
    for start, end in ((0.0, 6.0), (6.0, 30.0)):
        y = y + np.array([0, 1.0, 0])
        y = scipy.integrate.solve_ivp(slope, (start, end), y, "DOP853", rtol=1e-10).y[:, -1]
    for dt in (0.5, 0.25, 0.125):
        t = dt * np.arange(round(30 / dt) + 1)
        _, v = nj.simulate(
            net, net.init_weights(KEY, dtype=float), net.init(float),
            {"x": jnp.asarray(np.isin(t, spikes)[:, None], float)}, n_steps=len(t), dt=dt,
            probe=nj.recording.potential("h"),
        )  # fmt: skip
        off.append(abs(float(v[-1, 0]) - y[2]))
    np.testing.assert_allclose(np.log2(np.divide(off[:-1], off[1:])), 1, atol=0.15)
    assert y[2] > -60
    assert off[-1] < 0.1


@pytest.mark.parametrize(
    ("kind", "name", "bad", "told"),
    [
        (TsodyksMarkram, "U", 1.5, r"U must lie in \[0, 1\]; got 1.5"),
        (TsodyksMarkram, "tau_rec", -1.0, "tau_rec must be finite and >= 0 ms; got -1.0"),
        (TsodyksMarkram, "tau_fac", math.nan, "tau_fac must be finite and >= 0 ms; got nan"),
        (TsodyksMarkram, "tau_psc", 0.0, "tau_psc must be finite and > 0 ms; got 0.0"),
        (Quantal, "n_sites", 0, "n_sites must be a whole number >= 1; got 0"),
        (Quantal, "U", -0.1, r"U must lie in \[0, 1\]; got -0.1"),
        (NMDAGate, "alpha", 0.0, "alpha must be finite and > 0 1/ms; got 0.0"),
        (NMDAGate, "tau_decay", -1.0, "tau_decay must be finite and > 0 ms; got -1.0"),
    ],
)
def test_refuses_parameters_out_of_range(kind, name, bad, told):
    with pytest.raises(ValueError, match=told):
        kind(**{name: bad})


def test_refuses_what_does_not_fit_the_senders():
    with pytest.raises(ValueError, match=r"U of TsodyksMarkram must be one number.*\(2,\)"):
        TsodyksMarkram(U=jnp.array([0.1, 0.2])).init((3,))
    release = Quantal()
    with pytest.raises(ValueError, match=r"z must have shape \(3,\).*; got \(2,\)"):
        release.step(release.init((3,)), jnp.ones(2), dt=0.1, key=KEY)


@pytest.mark.parametrize(("release", "key"), [(TsodyksMarkram(), {}), (Quantal(), {"key": KEY})])
def test_refuses_counts_as_a_second_spike_finds_less_than_the_first(release, key):
    with pytest.raises(Exception, match="z must be 0 or 1, one spike a step where a release"):
        release.step(release.init((2,)), jnp.array([1.0, 2.0]), dt=0.5, **key)


@pytest.mark.usefixtures("untyped")
def test_refuses_what_is_no_key():
    release = Quantal()
    with pytest.raises(TypeError, match=r"key must be a JAX key; got 3: pass jax.random.key\(3\)"):
        release.step(release.init((3,)), jnp.ones(3), dt=0.1, key=3)
