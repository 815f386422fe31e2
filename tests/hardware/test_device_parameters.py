"""Parameters of devices, coders, policies and converters: defaults, ranges, types."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hardware as hw
import neurojax as nj
from hardware.devices import LONGEST
from hardware.programming import Spent
from tests.parameters import NONNEGATIVE, POSITIVE, SHARE, assert_taken_in_its_range_alone

PULSE = {"v_pulse": (1.0, NONNEGATIVE), "t_pulse": (1e-7, POSITIVE)}
READ = {"sigma_read": (0.0, NONNEGATIVE), "sigma_c2c": (None, NONNEGATIVE)}
TRAIN = hw.Train(8)
levels = [1e-6, 4e-6, 5e-6]
# Of each: the default of each parameter ("": it has none), and where it may lie.
MODELS = {
    functools.partial(hw.Quantiser, 3): {"limit": (1.0, POSITIVE)},
    functools.partial(hw.Affine, step=0.5): {"step": ("", SHARE), "slope": (None, NONNEGATIVE)},
    functools.partial(hw.Device, hw.linear(8)): {
        "G_min": (1e-6, NONNEGATIVE), "G_max": (1e-5, POSITIVE), "nu": (None, NONNEGATIVE),
        "t_0": (1.0, POSITIVE), **READ, **PULSE,
    },
    functools.partial(hw.Table, levels): {**READ, **PULSE},
    hw.PCM: {
        "G_min": (0.0, NONNEGATIVE), "G_max": (25e-6, POSITIVE), "t_0": (20.0, POSITIVE),
        "t_read": (250e-9, POSITIVE), **PULSE,
    },
    functools.partial(hw.Single, n_pulses=8): {"n_pulses": ("", POSITIVE)},
    functools.partial(hw.Train, n_pulses=8): {
        "n_pulses": ("", POSITIVE), "longest": (64.0, POSITIVE),
    },
    functools.partial(hw.Unidirectional, TRAIN): {
        "upper": (0.75, SHARE), "lower": (0.25, SHARE), "longest": (LONGEST, POSITIVE),
    },
    functools.partial(hw.MixedPrecision, hw.OneSide(TRAIN), n_pulses=8): {
        "n_pulses": ("", POSITIVE),
    },
}  # fmt: skip
STRUCTURE = {
    "signed": True, "discrete": True, "adaptive": False, "every": 1, "down": None, "stuck": None,
    "since": None,
}  # fmt: skip
ALL = [(make, name) for make, parameters in MODELS.items() for name in parameters]
pytestmark = pytest.mark.usefixtures("untyped")


@pytest.mark.parametrize("make", MODELS)
def test_parameters_are_those_of_their_source_unless_given(make):
    model = make()
    for name, (default, _) in MODELS[make].items():
        found = getattr(model, name)
        if default != "":
            assert found is None if default is None else found == np.float32(default), name
    for name in STRUCTURE.keys() & vars(model).keys():
        assert getattr(model, name) == STRUCTURE[name], name


@pytest.mark.parametrize(("make", "name"), ALL)
def test_each_parameter_is_taken_in_its_range_alone(make, name):
    allowed = MODELS[make][name][1]
    within = {POSITIVE: (3e-5,), NONNEGATIVE: (0.0, 5e-6), SHARE: (0.0, 1.0)}[allowed]
    within = {"upper": (0.5, 1.0), "lower": (0.0, 0.5)}.get(name, within)
    assert_taken_in_its_range_alone(make, name, allowed, within)


def test_rounds_are_counted():
    verify = functools.partial(hw.WriteVerify, hw.OneSide(TRAIN))
    assert (verify().rounds, verify(rounds=10_000).rounds) == (5, 10_000)
    for rounds, told in ((0, ">= 1; got 0"), (10_001, "<= 10000; got 10001"), (2.0, ">= 1; got 2")):
        with pytest.raises(ValueError, match=f"rounds must be a whole number {told}"):
            verify(rounds=rounds)
    for every in (0, 1.5):
        with pytest.raises(ValueError, match=f"every must be a whole number >= 1; got {every}"):
            hw.Unidirectional(TRAIN, every=every)


MAKERS = {
    "linear": hw.linear, "soft_bounds": hw.soft_bounds,
    "exponential": lambda n: hw.exponential(n, 3.0), "querlioz": lambda n: hw.querlioz(n, 2.0),
    "power": lambda n: hw.power(n, 2.0), "exp_step": hw.exp_step,
    "piecewise": lambda n: hw.piecewise(n, jnp.array([1.0, 0.5])),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_a_range_takes_a_number_of_pulses(name):
    for n in (0, -2.0, np.nan):
        with pytest.raises(ValueError, match=f"n_pulses must be finite and > 0 pulses; got {n}"):
            MAKERS[name](n)
    if name in ("querlioz", "power", "exp_step", "piecewise"):
        with pytest.raises(ValueError, match="n_pulses must be at most 65536 where .*; got 65537"):
            MAKERS[name](jnp.array([8.0, 65537.0]))
    if name == "power":
        assert MAKERS[name](65536).step.first == 2.0**-16


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: hw.exponential(8, np.nan), "a must be finite and > 0 pulses; got nan"),
        (lambda: hw.querlioz(8, -0.5), r"beta must lie in \[0, 80\]; got -0.5"),
        (lambda: hw.querlioz(8, 81.0), r"beta must lie in \[0, 80\]; got 81"),
        (lambda: hw.power(8, -0.5), "gamma must be finite and >= 0; got -0.5"),
        (lambda: hw.exp_step(8, gamma=81.0), r"gamma must lie in \[-80, 80\]; got 81"),
        (lambda: hw.exp_step(8, scale=-81.0), r"scale must lie in \[-80, 80\]; got -81"),
        (lambda: hw.exp_step(8, b="much"), r"b must lie in \[-80, 80\]; got 'much'"),
        (lambda: hw.piecewise(8, jnp.ones((2, 2))), r"nodes must be two or .* shape \(2, 2\)"),
        (lambda: hw.piecewise(8, [1.0, np.nan]), "nodes must be finite and >= 0; got nan"),
        (lambda: hw.Table([1e-6, np.nan]), "levels must be finite, in S; got nan"),
        (lambda: hw.table([-1e-6, 1e-6], 3), "G must be finite and >= 0 S; got -1e-06"),
        (lambda: hw.table([2e-6, 1e-6], 3), "G must be two or more rising numbers, S; got"),
        (lambda: hw.table(levels, 2.5), "n_states must be a whole number >= 2; got 2.5"),
        (lambda: hw.PCM(G_max=jnp.full(3, 1e-5)).init(jnp.ones(4)), "G_max of PCM must be one"),
        (
            lambda: hw.Device(hw.linear(8), hw.linear(jnp.full(3, 8.0))).init(jnp.ones(4)),
            r"step of Affine must be one number or one a device, of shape \(4,\); got .*\(3,\)",
        ),
    ],
)
def test_what_no_device_can_be_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
    assert hw.querlioz(8, 0.0).step.alpha == pytest.approx(1 / 8)
    assert len(hw.table(levels, 2).levels) == 2
    assert hw.Table(levels).init(jnp.ones(2)).G.shape == (2,)


KINDS = {
    name: lambda name=name: hw.Device(MAKERS[name](8.0), sigma_c2c=0.1, sigma_read=0.1, nu=0.1)
    for name in MAKERS
} | {
    "table": lambda: hw.Table(levels, 0.1, 0.1),
    "pcm": hw.PCM,
    "varied": lambda: hw.varied(
        jax.random.key(0), hw.Device(hw.linear(8.0), nu=0.1), (3,), 0.1, stuck_low=0.5
    ),
    "any number": lambda: hw.Device(hw.soft_bounds(8.0), discrete=False),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", KINDS)
def test_devices_made_in_double_precision_keep_the_type_of_their_state(name, dtype, x64):
    device, key = KINDS[name](), jax.random.key(1)

    def run(G, n, t, longest):
        fresh = device.init(G, t=t)
        cells = device.pulse(fresh, n, n, key=key, t=t)
        read = device.read(cells, t=t), device.read(cells, key=key, t=t)
        seen = *read, device.read_sigma(cells, t=t)
        return fresh, cells, seen, device.pulses_to(G, longest)

    wide = [jnp.ones(3, float), jnp.asarray(5.0, float), jnp.asarray(30.0, float)]
    fresh, cells, given, n = jax.eval_shape(run, jnp.ones(3, dtype), *wide)
    assert jax.tree.structure(fresh) == jax.tree.structure(cells)
    shapes = lambda tree: [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]  # noqa: E731
    assert shapes(fresh) == shapes(cells)
    assert (fresh.G.dtype, fresh.n_pulses.dtype) == (dtype, "int32")
    assert {x.dtype for x in given} == {jnp.dtype(dtype)}
    assert n.dtype == "float32"  # half precision counts no further than 256
    if getattr(fresh, "since", None) is not None:
        assert fresh.since.s.dtype == "float32"


def test_responses_of_mixed_precision_are_solved_in_the_wider_and_in_float32_at_least(x64):
    for n, beta, kept in (
        ("bfloat16", "bfloat16", "float32"), ("float32", "bfloat16", "float32"),
        ("bfloat16", "float64", "float64"), ("float64", "float32", "float64"),
    ):  # fmt: skip
        with jax.numpy_dtype_promotion("standard"):
            made = jax.eval_shape(hw.querlioz, jnp.asarray(8.0, n), jnp.asarray(2.0, beta))
        assert made.step.alpha.dtype == kept


POLICIES = {
    "bidirectional": hw.Bidirectional(TRAIN),
    "one side": hw.OneSide(hw.Train(8, adaptive=True)),
    "single": hw.OneSide(hw.Single(8)),
    "unidirectional": hw.Unidirectional(TRAIN),
    "write-verify": hw.WriteVerify(hw.OneSide(TRAIN)),
    "mixed precision": hw.MixedPrecision(hw.OneSide(TRAIN), 8),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", POLICIES)
def test_arrays_made_in_double_precision_keep_the_type_of_their_weights(name, dtype, x64):
    wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, float), tree)  # noqa: E731
    device = hw.Device(hw.linear(8.0), sigma_c2c=0.1, sigma_read=0.1, nu=0.1)
    write = wide(POLICIES[name]) if name != "single" else "exact"
    make = hw.crossbar(
        device, wide(POLICIES[name]), 1.0, write=write, sigma_d2d=0.1, stuck_low=0.1,
        dac=hw.Quantiser(3), adc=hw.Quantiser(3), rows=2,
    )  # fmt: skip

    def run(w, key, seconds):
        array = make(w, nj.Dense(3, 2), key)
        s, e = w[0], w[:, 0]
        seen = array.w, array.apply(s), array.apply(s, key=key), array.apply_t(e, key=key)
        later = array.program(w, key=key).waited(seconds)
        held = array.hold(s)
        return array, later, (*seen, held.current, held.sigma)

    w = jnp.ones((2, 3), dtype)
    array, later, seen = jax.eval_shape(run, w, jax.random.key(0), jnp.asarray(1.0, float))
    kept = lambda tree: [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]  # noqa: E731
    assert kept(array) == kept(later)
    assert {x.dtype for x in seen} == {jnp.dtype(dtype)}
    assert array.n_clipped.dtype == "int32"
    assert {array.pair.spent.energy.dtype, array.pair.spent.time.dtype} == {jnp.dtype("float32")}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_coders_keep_the_type_of_what_they_are_asked_for(dtype, x64):
    G, key = jnp.full(3, 2e-6, dtype), jax.random.key(0)
    for device in (hw.Device(hw.linear(8.0)), hw.Table(levels), hw.PCM()):  # in double precision
        for coder in (hw.Train(8), hw.Train(8, adaptive=True), hw.Single(8)):
            ask = lambda G, d=device, coder=coder: coder(d, d.init(G), G, key=key)  # noqa: E731
            n = jax.eval_shape(ask, G)
            assert (n.up.dtype, n.down.dtype) == (dtype, dtype)


def test_nothing_is_spent_at_first():
    for dtype, kept in (("bfloat16", "float32"), ("float32", "float32")):
        spent = Spent.none((2, 3), dtype)
        assert [x.shape for x in spent] == [(), (), (2, 3), (2,)]
        assert not any(x.any() for x in spent)
        assert {spent.energy.dtype, spent.time.dtype, spent.rest.dtype} == {jnp.dtype(kept)}
