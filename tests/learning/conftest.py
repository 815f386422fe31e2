"""What learners without derivatives and without backward reads are tested by."""

import equinox as eqx
import jax
import pytest

import neurojax as nj


class OneWay(nj.Ideal):
    """Synapses that nobody may read backwards."""

    def apply_t(self, e, *, key=None):
        raise AssertionError("read backwards")


@pytest.fixture
def one_way():
    """Makes weights that nobody may read backwards."""
    return lambda w, wiring, key: OneWay(w, wiring)


@pytest.fixture
def no_derivatives(monkeypatch):
    """For one test JAX refuses to differentiate."""

    def refuse(*args, **options):
        raise AssertionError("a derivative was taken")

    for name in ("grad", "value_and_grad", "vjp", "jvp", "linearize", "jacfwd", "jacrev"):
        monkeypatch.setattr(jax, name, refuse)
    for name in ("filter_grad", "filter_value_and_grad", "filter_vjp", "filter_jvp"):
        monkeypatch.setattr(eqx, name, refuse)
