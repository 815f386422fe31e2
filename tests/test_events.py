"""The kernel of event-driven products: made once, not needed, and clear where it fails."""

import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import events
from neurojax.connectivity import bernoulli


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "neurojax"


def test_the_kernel_is_compiled_once_and_kept(cache, monkeypatch):
    kept = events._built("c++")
    assert [*cache.iterdir()] == [kept]
    monkeypatch.setattr(subprocess, "run", None)
    assert events._built("c++") == kept


def test_a_compiler_that_fails_says_so_and_leaves_nothing(cache, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match=r"false -std=c\+\+17 .* failed; native=False does"):
        events.compiled.__wrapped__()
    assert not [*cache.iterdir()]


@pytest.mark.parametrize("missing", ["compiler", "folder"])
def test_without_a_kernel_loops_do_the_same(cache, monkeypatch, missing):
    if missing == "compiler":
        monkeypatch.setenv("PATH", "")
    else:
        cache.write_text("")  # a file where the folder should be
    assert not events.compiled.__wrapped__()
    monkeypatch.setattr(events, "compiled", lambda: False)
    wiring = bernoulli(jax.random.key(0), 50, 40, 0.2)
    w, s = jnp.arange(1.0 * wiring.shape[0]), (jnp.arange(50) % 7 == 0).astype(float)
    np.testing.assert_allclose(wiring.apply(w, s), wiring.matrix(w) @ s, rtol=1e-6)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.02, 1.0])
def test_no_spike_is_dropped_however_many_there_are(native, part):
    wiring = bernoulli(jax.random.key(1), 3000, 700, 0.05, native=native)
    s = (np.random.default_rng(0).random(3000) < part).astype(np.float32)
    reached = jax.jit(lambda w, s: wiring.apply(w, s))(jnp.ones(wiring.shape), jnp.asarray(s))
    pre, post, _ = (np.asarray(x) for x in wiring.edges())
    np.testing.assert_array_equal(reached, np.bincount(post, s[pre], 700))


def test_kernel_and_loops_round_alike():
    made = [bernoulli(jax.random.key(2), 300, 200, 0.1, native=n) for n in (True, False)]
    w = jax.random.normal(jax.random.key(3), made[0].shape)
    s = jax.random.bernoulli(jax.random.key(4), 0.2, (4, 300)).astype(float)
    post = jax.random.normal(jax.random.key(5), (4, 200))
    for product in (lambda c: jax.vmap(lambda s: c.apply(w, s))(s), lambda c: c.outer(post, s)):
        native, pure = (jax.jit(product)(c) for c in made)
        np.testing.assert_array_equal(native, pure)
