"""One list of every model with `init` and `step`, and the battery that each must pass.

A new model is a new row: a population of `N`, and its step under an input that is [N].
"""

import copy
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hardware.devices import Device, querlioz, soft_bounds, table
from neurojax._check import working
from neurojax.network import Layer, Network, Projection
from neurojax.neurons import surrogate
from neurojax.neurons.channels import HodgkinHuxley, TraubMiles, WangBuzsaki
from neurojax.neurons.integrators import IF, EscapeLIF
from neurojax.neurons.izhikevich import Izhikevich
from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator
from neurojax.neurons.nonlinear import EIF, QIF, AdEx
from neurojax.neurons.rate import Rate
from neurojax.neurons.resonator import ResonateAndFire
from neurojax.neurons.sources import (
    NoiseCurrent,
    Poisson,
    PoissonInput,
    SpikeTimes,
    StepCurrent,
)
from neurojax.plasticity.dopamine import DopamineSTDP
from neurojax.plasticity.inhibitory import InhibitorySTDP
from neurojax.plasticity.stdp import STDP
from neurojax.plasticity.three_factor import Homeostasis, Post, ThreeFactor
from neurojax.plasticity.triplet import TripletSTDP
from neurojax.synapses.delays import Delay
from neurojax.synapses.receptors import (
    Alpha,
    Conductance,
    DoubleExponential,
    Exponential,
    MagnesiumBlock,
)
from neurojax.synapses.release import NMDAGate, Quantal, TsodyksMarkram
from neurojax.weights import Ideal
from neurojax.wiring.layouts import Band
from neurojax.wiring.sparse import by_sender

N, T = 16, 20


TOL = {"rtol": 1e-5, "atol": 1e-6}  # float32: one ulp (1.2e-7) a step and operation, T steps
UPSWING = {"rtol": 1e-3, "atol": 2e-3}  # mV; rounding grows as the upswing does, a hundredfold


class Row(NamedTuple):
    model: Any
    step: Callable = lambda model, state, x: model.step(state, x, dt=1.0)
    init: Callable = lambda model, dtype: model.init((N,), dtype)
    tol: dict[str, float] = TOL


def filtered(synapse, state, x):
    return synapse.step(state, x, dt=1.0, tau_mem=20.0)


def opened(neuron, state, x):
    """`x` plays the current, and at a quarter the conductance."""
    return neuron.step(state, x, dt=1.0, conductance=x / 4)


def gated(receptor, state, x):
    """`x` plays the potential too."""
    return receptor.step(state, x, dt=1.0, v=20 * x - 60)


def released(release, state, x):
    """`x` plays the spikes of the senders."""
    key = {"key": jax.random.key(0)} if isinstance(release, Quantal) else {}
    return release.step(state, x / 4, dt=1.0, **key)


class Together(eqx.Module):
    """Neurons of several models, each under a current of its own, as one: what they send, added."""

    models: dict[str, Any]
    drive: tuple[float, ...] = eqx.field(static=True)  # one a model, in the order of their names

    def init(self, shape, dtype):
        return {name: model.init(shape, dtype) for name, model in self.models.items()}

    def step(self, state, x, **options):
        new = {
            name: self.models[name].step(state[name], x * drive, **options)
            for name, drive in zip(sorted(self.models), self.drive, strict=True)
        }
        return {n: s for n, (s, _) in new.items()}, sum(z for _, z in new.values())


def shunted(neurons, state, x):
    """`x` plays the current, and a weak conductance."""
    return neurons.step(state, x, dt=0.5, conductance=x / 100)


def patched(neurons, state, x):
    """`x` plays the current, and a weak conductance."""
    return neurons.step(state, x, dt=0.1, conductance=x / 100)


def by_key(neuron, state, x):
    return neuron.step(state, x, dt=1.0, key=jax.random.key(0))


def unheard(sources, state, x):
    """`x` is not heard, but added."""
    key, y, new = jax.random.key(0), x, {}
    for name, source in sources.models.items():
        options = {"key": key} if name in ("noise", "many") else {}
        new[name], z = source.step(state[name], None, dt=1.0, **options)
        y = y + z
    return new, y


def drawn(source, state, x):
    """`x` plays the rate."""
    source = eqx.tree_at(lambda s: s.rate, source, 100 * x)
    return source.step(state, x, dt=1.0, key=jax.random.key(0))


def delayed(delay, state, x):
    return delay.write(state, x), delay.read(state)


def looped(net, state, x):
    weights = {n: Ideal(p.w.astype(x.dtype), p.connectivity) for n, p in net.projections.items()}
    state, records = net.step(weights, state, {"h": x}, dt=1.0)
    return state, records["h"].z


def learned(rule, state, x):
    """Eligibility of a ring; `x` plays presynaptic spikes, window and third factor."""
    x = x / 4
    state, dw = rule.step(state, RING, LIF(), x, Post(x, x), x, dt=1.0)
    return state, dw.sum(1)


def paired(rule, state, x):
    """Visits of as many senders as receivers; `x` plays the spikes on both sides."""
    state, visits = rule.visit(state, x / 4, x[::-1] / 4, dt=1.0)
    return state, sum(v.event * v.trace for v in visits).astype(x.dtype)


def rewarded(rule, state, x):
    """Reward-modulated pairs of a ring; `x` plays the dopamine too."""
    state, dw = rule.step(state, RING, x / 4, x[::-1] / 4, dt=1.0, signal=x)
    return state, dw.sum(1)


def on_ring(rule, dtype):
    return rule.init(RING, dtype)


def excited(homeostasis, state, x):
    state = homeostasis.step(state, x)
    return state, state.v_th


def pulsed(device, state, x):
    """x pulses up, then as many down as are left of 4."""
    n = jnp.round(x)
    state = device.pulse(state, n, 4 - n)
    return state, state.G / device.G_max.astype(state.G.dtype)


def programmed(device, dtype):
    return device.init(jnp.linspace(1e-6, 1e-5, N, dtype=dtype))


RING = Band(jnp.ones((N, 7), bool).at[:, 3].set(False), 3)
NETWORK = Network(
    {"h": Layer(N, LIF(tau_mem=5.0, r_mem=2.0))},
    {"near": Projection("h", "h", RING, delay=1, w=jnp.cos(jnp.arange(7.0 * N)).reshape(N, 7))},
)

LISTED = by_sender(np.arange(3 * N) % N, np.arange(3 * N) * 5 % N, N, N, native=False)
EVENTS = Network(
    {"h": Layer(N, LIF(tau_mem=5.0, r_mem=2.0))},
    {"far": Projection("h", "h", LISTED, delay=2, w=jnp.cos(jnp.arange(3.0 * N)))},
)

each = jnp.linspace(5.0, 20.0, N)
ROWS = {
    "LIF": Row(LIF()),
    "LIF, all options": Row(
        LIF(
            tau_mem=each,
            v_rest=-0.1,
            v_reset=-0.2,
            t_ref=2.0,
            reset="subtract",
            spike=surrogate.fast_sigmoid(),
        )
    ),
    "LIF, conductance": Row(LIF(tau_mem=each, v_rest=-0.1, v_reset=-0.2), opened),
    "ALIF": Row(ALIF(tau_adapt=50.0)),
    "ALIF, all options": Row(ALIF(tau_mem=each, t_ref=each / 4, reset="subtract", beta_adapt=0.3)),
    "LeakyIntegrator": Row(LeakyIntegrator(tau_mem=each)),
    "Exponential": Row(Exponential(5.0), filtered),
    "Exponential, each": Row(Exponential(each), filtered),
    "Alpha": Row(Alpha(5.0), filtered),
    "Alpha, each": Row(Alpha(each), filtered),
    "DoubleExponential, each": Row(DoubleExponential(each, 10.0), filtered),
    "Conductance, gated": Row(Conductance(Alpha(5.0), each, MagnesiumBlock(each / 20)), gated),
    "TsodyksMarkram": Row(TsodyksMarkram(each / 40, 10 * each, tau_psc=each), released),
    "Quantal": Row(Quantal(5, each / 40), released),
    "NMDAGate": Row(NMDAGate(each / 10, 10 * each), released),
    "Delay": Row(Delay(3), delayed),
    "QIF, EIF, AdEx": Row(
        Together(
            {
                "QIF": QIF(tau_mem=each),
                "EIF": EIF(tau_mem=each, spike=surrogate.fast_sigmoid()),
                "AdEx": AdEx(a=each / 1e3, t_ref=1.0, substeps=2),
            },
            (1.0, 10.0, 60.0),
        ),
        shunted,
        tol=UPSWING,
    ),
    "neurons with channels": Row(
        Together(
            {
                "HH": HodgkinHuxley(g_l=each / 40),
                "TM": TraubMiles(),
                "WB": WangBuzsaki(v_init=-each - 50),
            },
            (4.0, 0.2, 1.0),
        ),
        patched,
        tol=UPSWING,
    ),
    "Izhikevich": Row(
        Together(
            {s: Izhikevich(d=each / 2, scheme=s) for s in ("2003", "2004", "rk4")},
            (8.0, 8.0, 8.0),
        ),
        shunted,
        tol=UPSWING,
    ),
    "IF, rate": Row(
        Together(
            {
                "IF": IF(c_mem=each, t_ref=2.0, spike=surrogate.fast_sigmoid()),
                "IF, subtract": IF(reset="subtract"),
                "rate": Rate(tau=each, ceiling=0.5),
                "resonator": ResonateAndFire(omega=each / 50),
            },
            (3.0, 0.2, 1.0, 0.1),
        ),
    ),
    "EscapeLIF": Row(EscapeLIF(tau_mem=each, t_ref=2.0), by_key),
    "given and noisy sources": Row(
        Together(
            {
                "noise": NoiseCurrent(sigma=each),
                "steps": StepCurrent([3.0, 7.5], jnp.stack([each, -each])),
                "times": SpikeTimes(jnp.stack([each, 2 * each], 1)),
                "many": PoissonInput(50.0, each),
            },
            (1.0, 1.0, 1.0, 1.0),
        ),
        unheard,
    ),
    "Poisson": Row(Poisson(each), drawn),
    "Network": Row(NETWORK, looped, lambda net, dtype: net.init(dtype)),
    "Network, events": Row(EVENTS, looped, lambda net, dtype: net.init(dtype)),
    "STDP": Row(STDP(), paired, on_ring),
    "STDP, nearest": Row(STDP(pairing="nearest"), paired, on_ring),
    "TripletSTDP": Row(TripletSTDP(), paired, on_ring),
    "InhibitorySTDP": Row(InhibitorySTDP(), paired, on_ring),
    "DopamineSTDP": Row(DopamineSTDP(), rewarded, on_ring),
    "ThreeFactor": Row(ThreeFactor(0.9), learned, lambda rule, dtype: rule.init(RING, dtype)),
    "Homeostasis": Row(
        Homeostasis(rate=0.1), excited, lambda rule, dtype: rule.init(jnp.ones(N, dtype))
    ),
    "Device": Row(Device(soft_bounds(each), nu=0.05), pulsed, programmed),
    "Device, stepwise": Row(Device(querlioz(64, 3.0)), pulsed, programmed),
    "Table": Row(table(jnp.linspace(1e-6, 1e-5, 32)), pulsed, programmed),
}


@pytest.fixture(params=ROWS, name="row")
def _row(request):
    return ROWS[request.param]


def inputs(*leading, dtype=jnp.float32):
    x = np.random.default_rng(0).uniform(0.0, 4.0, (*leading, T, N))
    return jnp.asarray(x, dtype)


def added_up(tree):
    """With values that are kept in two parts as one: how they split is a matter of rounding."""

    def one(x):
        if not hasattr(x, "_asdict"):
            return x
        parts = {n: added_up(value) for n, value in x._asdict().items()}
        low = {n: parts.pop(f"{n}_low", None) for n in x._fields}
        return {n: v if low[n] is None else v + low[n].astype(v.dtype) for n, v in parts.items()}

    return jax.tree.map(one, tree, is_leaf=lambda x: hasattr(x, "_asdict"))


@eqx.filter_jit
def run(row, model, state, xs):
    """The last state, and of every step the state and the output."""

    def step(state, x):
        state, y = row.step(model, state, x)
        return state, (state, y)

    return jax.lax.scan(step, state, xs)


def test_compiled_equals_eager(row):
    start, xs = row.init(row.model, float), inputs()
    _, steps = jax.device_get(run(row, row.model, start, xs))
    at = lambda t: jax.tree.map(lambda leaf: leaf[t], steps)  # noqa: E731
    for t in (0, 1, T // 2, T - 1):
        before = jax.tree.map(jnp.asarray, at(t - 1)[0]) if t else start
        eager = jax.device_get(row.step(row.model, before, xs[t]))
        chex.assert_trees_all_close(added_up(eager), added_up(at(t)), **row.tol)
    assert np.any(steps[1]), "the input is too weak to show anything"


def test_a_batch_equals_its_samples(row):
    xs, state = inputs(3), row.init(row.model, float)
    batch = jax.jit(jax.vmap(lambda x: run(row, row.model, state, x)))(xs)
    for b in range(3):
        alone = run(row, row.model, state, xs[b])
        one = jax.tree.map(lambda x, b=b: x[b], batch)
        chex.assert_trees_all_close(added_up(one), added_up(alone), **row.tol)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_equal_models(row, copied):
    for x in (row.model, row.init(row.model, float)):
        assert jax.tree.structure(copied(x)) == jax.tree.structure(x)
        chex.assert_trees_all_equal(copied(x), x)


def test_compiles_once_for_many_steps(row):
    chex.clear_trace_counter()
    arrays, others = eqx.partition(row.model, eqx.is_array)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(arrays, state, x):
        return row.step(eqx.combine(arrays, others), state, x)

    state = jax.eval_shape(lambda: row.init(row.model, float))
    for _ in range(3):
        state, _ = step.eval_shape(arrays, state, inputs()[0])


@pytest.mark.parametrize(
    ("dtype", "x64"),
    [
        ("bfloat16", False),
        ("bfloat16", True),
        ("float32", False),
        ("float32", True),
        ("float64", True),
    ],
)
def test_state_keeps_structure_shape_and_dtype(row, dtype, x64):
    with jax.enable_x64(x64):
        state = jax.eval_shape(lambda: row.init(row.model, dtype))
        kept = {dtype, working(dtype), "int32"}  # and what `dtype` cannot hold of a value
        assert {x.dtype for x in jax.tree.leaves(state)} <= set(map(jnp.dtype, kept))
        new, y = jax.eval_shape(
            lambda state, x: row.step(row.model, state, x), state, inputs(dtype=dtype)[0]
        )
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        assert not any(x.weak_type for x in jax.tree.leaves((state, new, y)))
        assert (y.shape, y.dtype) == ((N,), jnp.dtype(dtype))


@pytest.mark.slow
def test_float64_refines_float32(row):
    single = run(row, row.model, row.init(row.model, "float32"), inputs())
    with jax.enable_x64(True):
        xs = inputs().astype("float64")
        double = run(row, row.model, row.init(row.model, "float64"), xs)
        double = jax.tree.map(np.asarray, double)
    pair = jax.tree.leaves(added_up(single)), jax.tree.leaves(added_up(double))
    for one, two in zip(*pair, strict=True):
        np.testing.assert_allclose(one, two, **row.tol)


@pytest.mark.slow
def test_eight_devices_equal_one(row):
    mesh = jax.make_mesh((8,), ("neuron",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(x):
        spec = (None,) * (x.ndim - 1) + ("neuron",) if x.ndim and x.shape[-1] == N else ()
        return jax.device_put(x, jax.NamedSharding(mesh, jax.P(*spec)))

    arguments = row.model, row.init(row.model, float), inputs()
    sharded = run(row, *jax.tree.map(place, arguments))
    alone = run(row, *arguments)
    chex.assert_trees_all_close(jax.device_get(sharded), jax.device_get(alone), **row.tol)
    outputs = sharded[1][1]
    assert len(outputs.sharding.device_set) == 8
    assert not outputs.sharding.is_fully_replicated


NEURONS = ("LIF", "QIF, EIF, AdEx", "Izhikevich", "neurons with channels", "IF, rate")


def each_its_own(model, factor):
    """With every number a parameter of each neuron, that of the first times `factor`."""
    scale = jnp.ones(N).at[0].set(factor)
    return jax.tree.map(lambda p: p * scale, model)


@pytest.mark.parametrize("name", NEURONS)
def test_parameters_of_a_neuron_change_it_alone_and_strong_drives_leave_no_nan(name):
    row, model = ROWS[name], ROWS[name].model
    start = row.init(model, float)
    one, other = (run(row, each_its_own(model, x), start, inputs()) for x in (1.0, 1.3))
    for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_array_equal(x[..., 1:], y[..., 1:])
    states = zip(jax.tree.leaves(one[0]), jax.tree.leaves(other[0]), strict=True)
    assert any(np.any(x[..., 0] != y[..., 0]) for x, y in states)
    for strong in (-250.0, 250.0):  # of up to 4 times
        steps = run(row, each_its_own(model, 1.0), start, strong * jnp.abs(inputs()))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(steps))


@pytest.mark.parametrize(
    "model",
    [LIF, ALIF, QIF, EIF, AdEx, Izhikevich, HodgkinHuxley, TraubMiles, WangBuzsaki, IF]
    + [ResonateAndFire],
)
def test_a_spike_that_is_no_array_of_the_population_is_refused(model, untyped):
    neuron = model(spike=len)
    with pytest.raises(TypeError, match="spike must map an array to one of its shape; got 16"):
        neuron.step(neuron.init((N,)), jnp.ones(N), dt=1.0)
