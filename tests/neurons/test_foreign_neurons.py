"""Neurons of snnTorch, Norse and Spyx: ours by their numbers, against loops of their equations."""

import json
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax.interchange import SteppedExponential, from_snntorch_synaptic

PEERS = Path(__file__).parents[2] / "benchmarks/.peers/torch/bin/python"
BETA, TH = np.array([0.5, 0.9, 0.99]), np.array([1.0, 0.7, 2.0])


def drive(steps=400, n=3):
    return np.random.default_rng(0).uniform(-0.1, 0.6, (steps, n))


def ours(neuron, x, dt, synapse=None):
    """Potentials before reset, and spikes."""
    layer = nj.Layer(x.shape[1], neuron, synapse)
    state = layer.init()

    def step(state, x):
        r = layer.step(state[0], state[1], x, dt=dt)
        return (r.neuron, r.synapse), (r.neuron.v, r.z)

    v, z = jax.lax.scan(step, state[:2], jnp.asarray(x))[1]
    return np.asarray(v), np.asarray(z)


def leaky(x, reset, beta=BETA, threshold=TH):
    """snnTorch's documentation of Leaky, the reset one step after the spike."""
    u, z, seen = np.zeros(3), np.zeros(3), []
    for i in x:
        u = beta * u * (1 - z) + i if reset == "zero" else beta * u + i - z * threshold
        z = (u > threshold) * 1.0
        seen.append((u, z))
    return np.moveaxis(np.array(seen), 1, 0)


@pytest.mark.parametrize("dt", [1.0, 0.1])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_leaky_of_snntorch_spike_for_spike(x64, reset, dt):
    u, z = leaky(drive(), reset)
    neuron = nj.LIF.from_snntorch(BETA, TH, reset, dt=dt)
    v, fired = ours(neuron, drive(), dt)
    assert z.sum() > 100
    np.testing.assert_array_equal(fired, z)
    np.testing.assert_allclose(v, u, atol=1e-12)  # below 5 and with a memory of 100 steps


def test_a_beta_of_0_remembers_nothing(x64):
    u, z = leaky(drive(), "zero", beta=np.zeros(3), threshold=0.5 * np.ones(3))
    v, fired = ours(nj.LIF.from_snntorch(0.0, 0.5, "zero"), drive(), 1.0)
    np.testing.assert_array_equal(fired, z)
    np.testing.assert_allclose(v, u, atol=1e-15)


def test_no_spike_at_the_threshold_itself():
    x = np.full((6, 1), 1.0, np.float32)
    neuron = nj.LIF.from_snntorch(0.5, 1.0, "zero")  # u: 1, then 1.5
    np.testing.assert_array_equal(ours(neuron, x, 1.0)[1][:, 0], [0, 1, 0, 1, 0, 1])


ALPHA = np.array([0.0, 0.8, 0.95])


def synaptic(x, reset, alpha=ALPHA, beta=BETA, threshold=TH):
    """snnTorch's documentation of Synaptic; "zero" takes all of the step after a spike."""
    i, u, z, seen = np.zeros(3), np.zeros(3), np.zeros(3), []
    for arrival in x:
        i = alpha * i + arrival
        u = beta * u + i
        u -= z * (u if reset == "zero" else threshold)
        z = (u > threshold) * 1.0
        seen.append((u, z))
    return np.moveaxis(np.array(seen), 1, 0)


@pytest.mark.parametrize(("reset", "dt"), [("subtract", 1.0), ("zero", 1.0), ("zero", 0.1)])
def test_synaptic_of_snntorch_spike_for_spike(x64, reset, dt):
    u, z = synaptic(drive(256), reset)
    neuron, synapse = from_snntorch_synaptic(ALPHA, BETA, TH, reset, dt=dt)
    v, fired = ours(neuron, drive(256), dt, synapse)
    assert z.sum() > 100
    np.testing.assert_array_equal(fired, z)
    np.testing.assert_allclose(v, u, atol=1e-10)  # below 300, where nothing resets it fast enough


def test_synaptic_in_float32_fires_as_in_doubles():
    """Where no potential comes within its rounding of the threshold."""
    x = drive(256)
    u, z = synaptic(x, "zero", beta=np.full(3, 0.5))
    neuron, synapse = from_snntorch_synaptic(ALPHA, 0.5, TH, "zero")
    fired = ours(neuron, jnp.asarray(x, jnp.float32), 1.0, synapse)[1]
    assert np.abs(u - TH).min() > 1e-5
    np.testing.assert_array_equal(fired, z)


def test_lif_of_spyx_is_a_step_ahead_of_it(x64):
    V, seen = np.zeros(3), []
    for i in drive():
        spikes = (V > TH) * 1.0
        V = BETA * V + i - spikes * TH
        seen.append((V, spikes))
    u, z = np.moveaxis(np.array(seen), 1, 0)
    v, fired = ours(nj.LIF.from_spyx(BETA, TH), drive(), 1.0)
    np.testing.assert_array_equal(fired[:-1], z[1:])
    np.testing.assert_allclose(v, u, atol=1e-12)


def boxed(x, dt, tau_inv, leak=0.0, th=1.0, reset=0.0):
    """Norse's documentation of its LIF box: Euler's method, dt in s."""
    v, seen = leak * np.ones(3), []
    for i in x:
        v = v + dt * tau_inv * (leak - v + i)
        z = (v > th) * 1.0
        seen.append((v, z))
        v = (1 - z) * v + z * reset
    return np.moveaxis(np.array(seen), 1, 0)


def test_box_of_norse_spike_for_spike(x64):
    tau_inv, given = np.array([50.0, 100.0, 1000.0]), dict(leak=-0.1, th=0.5, reset=-0.2)
    v, z = boxed(4 * drive(), 1e-3, tau_inv, **given)
    neuron = nj.LIF.from_norse(tau_inv, v_leak=-0.1, v_th=0.5, v_reset=-0.2, dt=1.0)
    found, fired = ours(neuron, 4 * drive(), 1.0)
    assert z.sum() > 100
    np.testing.assert_array_equal(fired, z)
    np.testing.assert_allclose(found, v, atol=1e-12)


@pytest.mark.parametrize("order", ["membrane", "synapse"])
def test_cell_of_norse_is_its_membrane_and_a_stepped_synapse(x64, order):
    """In both its orders: earlier releases add the jump after the membrane, later ones before."""
    dt, tau_m, tau_s = 1e-3, 100.0, 200.0
    v, i, seen = np.zeros(3), np.zeros(3), []
    for x in drive():
        i = i + x if order == "synapse" else i
        v = v + dt * tau_m * (0.0 - v + i)
        i = i - dt * tau_s * i
        i = i + x if order == "membrane" else i
        z = (v > 0.5) * 1.0
        seen.append((v, z))
        v = (1 - z) * v
    v, z = np.moveaxis(np.array(seen), 1, 0)
    tau = -1.0 / np.log1p(-dt * tau_s)  # ms, that leaves 1 - dt tau_syn_inv
    synapse = SteppedExponential(tau, order, held=True)
    found, fired = ours(nj.LIF.from_norse(tau_m, v_th=0.5), drive(), 1.0, synapse)
    assert z.sum() > 30
    np.testing.assert_array_equal(fired, z)
    np.testing.assert_allclose(found, v, atol=1e-12)


def test_a_surrogate_trains_what_came_from_elsewhere():
    neuron = nj.LIF.from_snntorch(0.9, spike=nj.surrogate.arctan())
    loss = lambda x: ours_sum(neuron, x)  # noqa: E731

    def ours_sum(neuron, x):
        state = neuron.init((3,))
        return jax.lax.scan(lambda s, i: neuron.step(s, i, dt=1.0), state, x)[1].sum()

    assert jnp.abs(jax.grad(loss)(jnp.asarray(drive(20), jnp.float32))).sum() > 0
    with pytest.raises(TypeError, match="above has no derivative: pass spike="):
        jax.grad(lambda x: ours_sum(nj.LIF.from_snntorch(0.9), x))(jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: nj.LIF.from_snntorch(1.0), r"beta must be in \[0, 1\): .* is nj.IF"),
        (lambda: nj.LIF.from_snntorch([0.5, -0.1]), r"beta must be in .*; got -0.1 \(1 of 2\)"),
        (lambda: nj.LIF.from_snntorch(0.9, 0.0), "threshold must be > 0; got 0.0"),
        (lambda: nj.LIF.from_snntorch(0.9, reset="none"), "reset must be 'subtract' or 'zero'; "),
        (lambda: nj.LIF.from_snntorch(0.0), 'beta must be > 0 beside reset="subtract"; got'),
        (lambda: nj.LIF.from_snntorch(10**400), r"beta must be in \[0, 1\).*; got 1000"),
        (lambda: nj.LIF.from_snntorch(np.array([0.5j])), r"beta must be in \[0, 1\).*; got array"),
        (lambda: nj.LIF.from_snntorch("much"), r"beta must be in \[0, 1\).*; got 'much'"),
        (lambda: nj.LIF.from_snntorch(0.9, dt=0), "dt must be finite and > 0 ms; got 0"),
        (lambda: from_snntorch_synaptic(1.0, 0.9), r"alpha must be in \[0, 1\); got 1.0"),
        (lambda: from_snntorch_synaptic(0.5, 1.0), r"beta must be in \[0, 1\)"),
        (lambda: from_snntorch_synaptic(0.5, 0.9, reset="none"), "reset must be 'subtract' or"),
        (lambda: nj.LIF.from_spyx(1.5), r"beta must be in \[0, 1\)"),
        (lambda: nj.LIF.from_norse(1100.0), r"tau_mem_inv must be in \(0, 1000\] .*; got 1100"),
        (lambda: nj.LIF.from_norse(v_th=-1.0), "v_th must be above v_reset; got -1 and 0 mV"),
    ],
)  # fmt: skip
def test_what_no_such_neuron_can_be_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


THEIRS = """
import json, sys, torch
x = torch.tensor(json.load(sys.stdin), dtype=torch.float64)
double = lambda *v: torch.tensor(v, dtype=torch.float64)
def run(step, state):
    seen = []
    for i in x:
        z, state = step(i, state)
        seen.append(z.tolist())
    return seen
"""
SNNTORCH = """
import snntorch
cell = lambda reset: snntorch.Leaky(
    beta=double(.5, .9, .99), threshold=double(1., .7, 2.), reset_mechanism=reset)
print(json.dumps({r: run(cell(r), 0 * x[0]) for r in ("subtract", "zero")}))
"""
SYNAPTIC = """
import snntorch
def fired(reset):
    cell = snntorch.Synaptic(alpha=double(0., .8, .95), beta=double(.5, .9, .99),
        threshold=double(1., .7, 2.), reset_mechanism=reset, init_hidden=True)
    return [cell(i).tolist() for i in x]
print(json.dumps({r: fired(r) for r in ("subtract", "zero")}))
"""
NORSE = """
from norse.torch.functional import lif_box
p = lif_box.LIFBoxParameters(
    double(50., 100., 1000.), double(-.1), double(.5), double(-.2), "heaviside")
step = lambda i, s: lif_box.lif_box_feed_forward_step(i, s, p, 0.001)
print(json.dumps(run(step, lif_box.LIFBoxFeedForwardState(0 * x[0] - .1))))
"""


def theirs(code, x):
    """What a package itself makes of the currents."""
    if not PEERS.exists():
        pytest.skip(f"there is no {PEERS}: make bench-peers installs it")
    told = json.dumps(x.tolist())
    done = subprocess.run([PEERS, "-c", THEIRS + code], input=told, capture_output=True, text=True)
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"{done.stderr.splitlines()[-1]} in {PEERS}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_snntorch_itself_spike_for_spike(x64):
    for reset, z in theirs(SNNTORCH, drive()).items():
        fired = ours(nj.LIF.from_snntorch(BETA, TH, reset), drive(), 1.0)[1]
        np.testing.assert_array_equal(fired, z, err_msg=reset)


@pytest.mark.slow
def test_synaptic_of_snntorch_itself_spike_for_spike(x64):
    for reset, z in theirs(SYNAPTIC, drive()).items():
        neuron, synapse = from_snntorch_synaptic(ALPHA, BETA, TH, reset)
        fired = ours(neuron, drive(), 1.0, synapse)[1]
        np.testing.assert_array_equal(fired, z, err_msg=reset)


@pytest.mark.slow
def test_norse_itself_spike_for_spike(x64):
    z = theirs(NORSE, 4 * drive())
    neuron = nj.LIF.from_norse([50.0, 100.0, 1000.0], v_leak=-0.1, v_th=0.5, v_reset=-0.2)
    np.testing.assert_array_equal(ours(neuron, 4 * drive(), 1.0)[1], z)
