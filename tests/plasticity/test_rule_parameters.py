"""Parameters of all that learns: their defaults, their ranges, and that each is one number."""

import functools
import inspect
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax.plasticity.dopamine import DopamineSTDP
from neurojax.plasticity.modulation import Modulators
from neurojax.plasticity.three_factor import Post
from tests.parameters import NONNEGATIVE, POSITIVE, SHARE, assert_taken_in_its_range_alone

WIRING = nj.Dense(3, 2)
PRE, POST, ONES = jnp.array([1.0, 0.0, 1.0]), jnp.array([0.0, 1.0]), jnp.ones(2)

modulators = functools.partial(Modulators, jnp.ones((2, 3)), {"h": jnp.ones((4, 2))})
# Of each model: the default of each parameter, and where it may lie.
MODELS = {
    nj.STDP: {  # Song et al. (2000); Pfister and Gerstner (2006)
        "a_plus": (0.01, NONNEGATIVE), "a_minus": (0.005, NONNEGATIVE),
        "tau_plus": (16.8, POSITIVE), "tau_minus": (33.7, POSITIVE),
    },
    nj.TripletSTDP: {
        "a2_plus": (5e-10, NONNEGATIVE), "a3_plus": (6.2e-3, NONNEGATIVE),
        "a2_minus": (7e-3, NONNEGATIVE), "a3_minus": (2.3e-4, NONNEGATIVE),
        "tau_x": (101.0, POSITIVE), "tau_y": (125.0, POSITIVE),
        "tau_plus": (16.8, POSITIVE), "tau_minus": (33.7, POSITIVE),
    },
    nj.InhibitorySTDP: {
        "eta": (1e-3, NONNEGATIVE), "rho_0": (3.0, NONNEGATIVE), "tau": (20.0, POSITIVE),
    },
    nj.DopamineSTDP: {"tau_c": (1000.0, POSITIVE), "tau_d": (200.0, POSITIVE)},  # Izhikevich
    nj.WeightDependence: {  # Gütig et al. (2003)
        "mu_plus": (0.02, NONNEGATIVE), "mu_minus": (0.02, NONNEGATIVE), "w_max": (1.0, POSITIVE),
    },
    nj.SynapticScaling: {"target": (5.0, POSITIVE), "tau": (1e5, POSITIVE)},
    nj.ThreeFactor: {"kappa_e": (0.95, SHARE), "decay": (None, SHARE)},
    nj.triangle: {"width": (1.0, POSITIVE)},
    nj.boxcar: {"width": (1.0, POSITIVE)},
    nj.Homeostasis: {
        "target": (0.05, SHARE), "rate": (0.5, NONNEGATIVE), "v_min": (0.05, POSITIVE),
        "penalty": (0.0, NONNEGATIVE),
    },
    nj.SoftWTA: {"gain": (30.0, POSITIVE), "margin": (0.1, NONNEGATIVE)},
    nj.HardWTA: {"margin": (0.1, NONNEGATIVE)},
    modulators: {"gain": (30.0, POSITIVE), "rho_m": (0.8, SHARE), "rho_s": (0.95, SHARE)},
}  # fmt: skip
ALL = [(make, name) for make, parameters in MODELS.items() for name in parameters]


@pytest.mark.parametrize("make", MODELS)
def test_parameters_are_those_of_their_source_unless_given(make):
    model = make()
    for name, (default, _) in MODELS[make].items():
        found = getattr(model, name)
        assert found is None if default is None else found == np.float32(default), name
    others = {"pairing": "all", "dependence": None, "reset_trace": True}
    for name in others.keys() & vars(model).keys():
        assert getattr(model, name) == others[name]


@pytest.mark.parametrize(("make", "name"), ALL)
def test_each_parameter_is_taken_in_its_range_alone(make, name):
    allowed = MODELS[make][name][1]
    within = {POSITIVE: (1e-30, 3.0), NONNEGATIVE: (0, 3.0), SHARE: (0.0, 1.0)}[allowed]
    assert_taken_in_its_range_alone(make, name, allowed, within)


def visited(rule):
    rule.visit(type(rule)().init(WIRING), PRE, POST, dt=1.0)


def rewarded(rule):
    rule.step(DopamineSTDP().init(WIRING), WIRING, PRE, POST, dt=1.0)


def factored(rule):
    rule.factor(nj.LIF(), Post(ONES[None], ONES[None]), ONES[None], dt=1.0)


def stepped(rule):
    start = nj.ThreeFactor().init(WIRING)
    rule.step(start, WIRING, nj.LIF(), PRE, Post(ONES, ONES), ONES, dt=1.0)


def taught(teacher):
    teacher(ONES, 1)


def started(rule):
    rule.init(WIRING)


USES = [
    (nj.STDP, visited), (nj.TripletSTDP, visited), (nj.InhibitorySTDP, visited),
    (nj.DopamineSTDP, rewarded), (nj.ThreeFactor, factored), (nj.ThreeFactor, stepped),
    (nj.WeightDependence, lambda d: d.plus(ONES)), (nj.WeightDependence, lambda d: d.minus(ONES)),
    (nj.SoftWTA, taught), (nj.HardWTA, taught),
    (nj.Homeostasis, lambda h: h.step(nj.Homeostasis().init(ONES), ONES)),
    (modulators, lambda m: m.step(modulators().init(2), ONES, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("make", "use"), USES)
def test_each_parameter_is_one_number(make, use):
    for name in MODELS[make]:
        several = eqx.tree_at(lambda m: getattr(m, name), make(), ONES, is_leaf=lambda x: x is None)  # noqa: B023
        with pytest.raises(
            ValueError, match=rf"{name} of \w+ must be one number; got shape \(2,\)"
        ):
            use(several)


LEARN = [nj.STDP, nj.TripletSTDP, nj.InhibitorySTDP]
LEFT = [
    *((make, use) for make in LEARN for use in (started, visited)),
    (nj.STDP, lambda rule: rule.change(WIRING, PRE[None], POST[None], dt=1.0)),
    (nj.STDP, lambda rule: factored(rule)),
    (nj.DopamineSTDP, started), (nj.DopamineSTDP, rewarded),
    (nj.SynapticScaling, lambda s: s.change(jnp.ones((2, 3)), WIRING, ONES, interval=1.0)),
]  # fmt: skip


@pytest.mark.parametrize(("make", "use"), LEFT)
def test_what_has_left_its_range_is_refused_where_it_is_used(make, use):
    for name in MODELS[make]:
        gone = eqx.tree_at(lambda m: getattr(m, name), make(), jnp.float32(-1.0))  # noqa: B023
        with pytest.raises(ValueError, match=f"{name} must be finite .*; got -1.0"):
            use(gone)


@pytest.mark.parametrize("make", [*LEARN, nj.DopamineSTDP])
def test_rules_remember_nothing_at_first_and_take_a_step_of_one_number(make):
    rule, start = make(), make().init(WIRING)
    assert not any(leaf.any() for leaf in jax.tree.leaves(start))
    go = functools.partial(rule.step, start, WIRING) if make is DopamineSTDP else None
    go = go or functools.partial(rule.visit, start)
    for dt, told in ((0.0, "finite and > 0 ms; got 0.0"), (ONES, r"one number; got shape \(2,\)")):
        with pytest.raises(ValueError, match=f"dt must be {told}"):
            go(PRE, POST, dt=dt)


def test_eligibility_is_nothing_at_first():
    start = nj.ThreeFactor().init(WIRING)
    assert not any(leaf.any() for leaf in jax.tree.leaves(start))
    assert [x.shape for x in start] == [(2, 3)] * 3 + [(2,)]


def dtypes(tree):
    return [x.dtype for x in jax.tree.leaves(tree)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("make", [*LEARN, nj.DopamineSTDP, nj.ThreeFactor])
def test_a_step_in_double_precision_widens_no_state(make, dtype):
    rule = make()  # in double precision too
    pre, post = PRE.astype(dtype), POST.astype(dtype)

    def run(dt, signal):
        start = rule.init(WIRING, dtype)
        if make is nj.ThreeFactor:
            neuron = nj.ALIF()
            end, dw = rule.step(start, WIRING, neuron, pre, Post(post, post), post, dt=1.0)
            d = rule.factor(neuron, Post(post[None], post[None]), post[None], dt=1.0)
            return start, end, (dw, d)
        if make is DopamineSTDP:
            return start, *rule.step(start, WIRING, pre, post, dt=dt, signal=signal)
        end, visits = rule.visit(start, pre, post, dt=dt)
        return start, end, [(v.event, v.trace) for v in visits]

    start, end, given = jax.eval_shape(run, *jnp.array([1.0, 0.1], float))
    assert jax.tree.structure(end) == jax.tree.structure(start)
    assert dtypes(end) == dtypes(start)
    assert [x.shape for x in jax.tree.leaves(end)] == [x.shape for x in jax.tree.leaves(start)]
    kept = dtype if make in (DopamineSTDP, nj.ThreeFactor) else "float32"  # what visits tell
    assert set(dtypes(given)) == {jnp.dtype(kept)}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("make", LEARN)
def test_refuses_a_state_that_init_does_not_give(make):
    good = make().init(WIRING)
    for state in (None, SimpleNamespace(pre=good.pre), SimpleNamespace(post=good.post)):
        with pytest.raises(TypeError, match="state must be what init gives; got"):
            inspect.unwrap(make.visit)(make(), state, PRE, POST, dt=1.0)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("make", [nj.STDP, nj.TripletSTDP])
def test_refuses_a_dependence_that_gives_no_factors(make):
    with pytest.raises(TypeError, match="dependence must have plus, minus; got float 0.5"):
        make(dependence=0.5)
    with pytest.raises(TypeError, match="dependence must be an instance; got the class"):
        make(dependence=nj.WeightDependence)


KEYS = {
    "broadcast": lambda key: nj.broadcast(key, 5, 3),
    "modulators": lambda key: nj.modulators(key, 2, {"h": 5}),
}


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("made", KEYS)
def test_refuses_a_number_for_a_key(made):
    with pytest.raises(TypeError, match=r"key must be a JAX key; got 3: pass jax.random.key\(3\)"):
        KEYS[made](3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("made", KEYS)
def test_what_is_drawn_is_refused_exactly_where_it_does_not_fit(made, monkeypatch):
    sizes = lambda: jax.eval_shape(lambda key: KEYS[made](key), jax.random.key(0))  # noqa: E731
    n_bytes = 8 * sum(x.size for x in jax.tree.leaves(sizes()) if x.ndim)
    monkeypatch.setattr("neurojax._memory.memory", lambda: n_bytes)
    sizes()
    monkeypatch.setattr("neurojax._memory.memory", lambda: n_bytes - 1)
    with pytest.raises(ValueError, match=f"would take {n_bytes} bytes; this machine has"):
        sizes()
