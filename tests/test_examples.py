"""The examples in docstrings are so."""

import doctest
import importlib.util
import os
import pkgutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hardware
import neurojax

MODULES = [
    name
    for package in (neurojax, hardware)
    for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if ">>> " in (importlib.util.find_spec(name).loader.get_source(name) or "")
]


LONG = {"neurojax.data.decoding"} | {
    f"neurojax.learning.{name}"
    for name in (
        "wta_broadcast",
        "eprop",
        "decolle",
        "boltzmann",
        "counter_current",
        "equilibrium",
        "noprop",
        "zeroth_order",
    )
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in MODULES]
)
def test_examples_of_a_module_come_out_as_written(name):
    known = {"jax": jax, "jnp": jnp, "np": np, "nj": neurojax, "hardware": hardware, "hw": hardware}
    known |= {"os": os, "tempfile": tempfile}
    failed, tried = doctest.testmod(importlib.import_module(name), extraglobs=known)
    assert tried > 0
    assert not failed
