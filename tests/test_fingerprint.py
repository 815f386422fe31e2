"""What a value computes, as a digest that another process agrees with."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurojax._fingerprint import fingerprint
from neurojax.learning import DFA, Perceptron
from neurojax.learning.perceptron import elu, relu


def net(lr=0.1, activation=relu):
    return Perceptron((3, 4, 2), DFA(), optax.sgd(lr), activation=activation)


def scaled(by):
    return lambda key, x: by * x


MADE = {
    "net": net,
    "rate": lambda: net(0.2),
    "activation": lambda: net(activation=elu),
    "momentum": lambda: Perceptron((3, 4, 2), DFA(), optax.sgd(0.1, 0.9)),
    "schedule": lambda: net(optax.cosine_decay_schedule(0.1, 10)),
    "a function": lambda: lambda key, x: x * 1,
    "other code": lambda: lambda key, x: x - 1,
    "another constant": lambda: lambda key, x: x * 2,
    "what it holds": lambda: scaled(1.0),
    "another of these": lambda: scaled(2.0),
    "an array that it holds": lambda: scaled(jnp.arange(3.0)),
    "another array": lambda: scaled(jnp.arange(3.0) + 1),
    "partial": lambda: partial(scaled, 1.0),
    "compiled": lambda: jax.jit(scaled(3.0)),
    "key": lambda: jax.random.key(0),
    "another key": lambda: jax.random.key(1),
    "words": lambda: {"a": 1, "b": {2, 3}},
    "NumPy": lambda: np.arange(3),
    "none": lambda: None,
}


def test_what_differs_in_what_it_computes_differs():
    found = {name: fingerprint(make()) for name, make in MADE.items()}
    assert len({*found.values()}) == len(found)


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_alike_is_alike(name):
    assert fingerprint(MADE[name]()) == fingerprint(MADE[name]())


def test_a_function_may_hold_itself():
    def again(n):
        return n and again(n - 1)

    assert fingerprint(again) == fingerprint(again)


@pytest.mark.slow
def test_another_process_agrees():
    told = "from tests.test_fingerprint import *; print(*(fingerprint(f()) for f in MADE.values()))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [fingerprint(make()) for make in MADE.values()]
