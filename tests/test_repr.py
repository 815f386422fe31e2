"""What a newcomer sees of a model: values, units and sizes."""

import inspect
import pydoc
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hardware
import neurojax as nj
from neurojax._check import between, optional, positive
from neurojax._repr import described, value


def own(x, h=None):
    return x


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            nj.LIF,
            "LIF(tau_mem=20 ms, r_mem=1 MOhm, v_th=1 mV, v_rest=0 mV, v_reset=0 mV,"
            " reset='hard', spike=heaviside)",
        ),
        (lambda: nj.LIF(spike=own).spike, "own"),
        (lambda: nj.Exponential(np.linspace(5, 20, 16)), "Exponential(tau_syn=[16] 5 to 20 ms)"),
        (lambda: nj.Alpha(np.full(3, 0.1)), "Alpha(tau_syn=[3] 0.1 ms)"),
        (lambda: nj.Delay(3), "Delay(steps=3)"),
        (
            lambda: nj.STDP(a_plus=1e-3, window=nj.triangle(0.5)),
            "STDP(a_plus=0.001, a_minus=0.005, tau_plus=16.8 ms, tau_minus=33.7 ms,"
            " window=triangle(width=0.5 mV), pairing='all')",
        ),
        (nj.surrogate.fast_sigmoid, "fast_sigmoid(slope=25 1/mV)"),
        (lambda: nj.always, "always"),
        (lambda: nj.post_spike, "post_spike"),
    ],
)
def test_a_model_shows_its_values_and_units(make, text):
    assert repr(make()) == text


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.1, "0.1 mV"),
        (jnp.float32(1 / 3), "0.333333 mV"),
        (jnp.zeros((2, 0)), "[2, 0] mV"),
        (jnp.arange(6).reshape(2, 3), "[2, 3] 0 to 5 mV"),
        (jnp.array([True, False]), "[2] False to True mV"),
        (jnp.array([1.5, 2], jnp.bfloat16), "[2] 1.5 to 2 mV"),
        (jnp.array([1.5, np.nan]), "[2] nan mV"),
        (np.int64(123456789), "123456789 mV"),
        (jax.random.key(0), "key<fry>[] mV"),
        ({"a": jnp.ones(2), "b": "hard"}, "{a: [2] 1 mV, b: 'hard'}"),
        (True, "True"),
    ],
)
def test_an_array_shows_its_shape_and_range(x, text):
    assert value(x, "mV") == text


def test_a_traced_model_shows_types():
    shown = []
    jax.jit(lambda m: shown.append(repr(m)))(nj.Exponential(np.ones(3)))
    assert shown == ["Exponential(tau_syn=float32[3] ms)"]


def test_an_array_given_away_shows_that():
    x = jnp.ones(3)
    x.delete()
    assert value(x, "ms") == "deleted float32[3] ms"


@described
class Model(eqx.Module):
    """A model of one's own."""

    tau: jax.Array = eqx.field(converter=positive("tau", "ms"))
    share: jax.Array | None = eqx.field(
        default=None, converter=optional(between("share", 0.0, 1.0))
    )
    window: nj.triangle = eqx.field(default_factory=nj.triangle)


def test_help_names_unit_type_and_default_of_every_field():
    assert (
        str(inspect.signature(Model))
        == "(tau: ms, share: array or None = None, window: triangle = triangle())"
    )
    assert inspect.getdoc(Model) == (
        "A model of one's own.\n\nFields:\n    tau: array, ms\n    share: array or None\n"
        "    window: triangle; default triangle()"
    )


@described
class Named(eqx.Module):
    """One that says itself what it is."""

    parts: dict[str, nj.triangle]

    def __repr__(self):
        return f"{len(self.parts)} parts"


def test_a_model_keeps_a_repr_of_its_own_and_help_shows_what_its_dicts_hold():
    assert repr(Named({"a": nj.triangle()})) == "1 parts"
    assert str(inspect.signature(Named)) == "(parts: {str: triangle})"


def units(model):
    """Units as the fields' own refusals name them."""
    found = {}
    for name in inspect.signature(model).parameters:
        arguments = {
            p: 1.0 for p, x in inspect.signature(model).parameters.items() if x.default is x.empty
        }
        with pytest.raises((ValueError, TypeError)) as refusal:
            model(**arguments | {name: float("nan")})
        found |= dict(re.findall(rf"({name}) must be .*(?:0|in) (\S+); got", str(refusal.value)))
    return found


@pytest.mark.parametrize(
    "model", [nj.LIF, nj.ALIF, nj.LeakyIntegrator, nj.Exponential, nj.Alpha, nj.Poisson]
)
def test_help_of_the_models_speaks_of_units_and_not_of_types(model):
    text = pydoc.render_doc(model, renderer=pydoc.plaintext)
    own = text.partition("Data and other attributes")[0]
    assert not re.search("jaxtyping|jaxlib|Union", own)
    for name, unit in units(model).items():
        assert re.search(rf"{name}: {unit}\b", own), name  # in the signature
        assert re.search(rf"^ \|      {name}: .*, {unit}(;|$)", own, re.M), name  # in the list
    assert units(model)


def test_help_of_the_functions_shows_types_in_a_word_or_two():
    found = {}
    for package in (nj, hardware):
        public = {
            n: getattr(package, n) for n in package.__all__ if n not in ("metrics", "plotting")
        }
        for name, x in public.items():
            inner = vars(x) if inspect.ismodule(x) else {name: x}
            found |= {f"{name}.{n}": inner[n] for n in getattr(x, "__all__", inner)}
    functions = {n: str(inspect.signature(x)) for n, x in found.items() if inspect.isfunction(x)}
    assert len(functions) > 80
    assert not {n: x for n, x in functions.items() if re.search("jaxtyping|jaxlib|Union|numpy", x)}
    assert functions["by_sender.by_sender"].startswith("(pre: array or Sequence[int], post: array")
    assert "key: key or None" in functions["fan_in.fan_in"]
