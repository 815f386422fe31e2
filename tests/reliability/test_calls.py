"""Calls with wrong or extreme arguments end in a finite value, or a refusal in one line.

Each argument of each public name meets values that are wrong or extreme, drawn by a seed, in a
process without the checks of types that tests run under; see `calls.py`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import hardware as hw
import neurojax as nj
from hardware import energy, presets, routing, topology
from neurojax import _memory
from tests.reliability.calls import models

CALLS = Path(__file__).with_name("calls.py")
ROOT = CALLS.parents[2]


def called(seed: int, number: int) -> list[str]:
    env = os.environ | {
        "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "True", "XLA_FLAGS": "",
    }  # fmt: skip
    words = [sys.executable, str(CALLS), str(seed), str(number)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr.splitlines()[-1:]  # the call that ended it
    *faults, counted = done.stdout.splitlines()
    assert json.loads(counted)["calls"] == number
    return faults


@pytest.mark.slow
def test_fifteen_calls_are_right_or_refused():
    assert called(seed=0, number=15) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_three_hundred_calls_are_right_or_refused(seed):
    assert called(seed, number=300) == []


def test_every_public_name_is_called_or_listed_as_called_elsewhere():
    text = CALLS.read_text()
    table, elsewhere = text.split('ELSEWHERE = """')
    known = set(re.findall(r'"(\w+\.[\w.]+)":', table))
    known |= set(elsewhere.split('"""')[0].split())
    known |= {f"presets.{name}" for name in presets.__all__} | {name for name, _ in models()}
    rooms = {
        "nj": nj, "hw": hw, "energy": energy, "routing": routing, "topology": topology,
        "wb": nj.wta_broadcast,
        **{f"nj.{m}": getattr(nj, m) for m in ("augment", "data", "encoding", "metrics",
                                               "recording", "surrogate", "traces")},
    }  # fmt: skip
    missing = [
        f"{room}.{name}"
        for room, module in rooms.items()
        for name in module.__all__
        if callable(getattr(module, name))
        and not {f"{room}.{name}", f"{room}.{name}".removeprefix("nj.")} & known
    ]
    assert missing == []


# --- a range is that of the type in which a value is kept ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nj.LIF(tau_mem=1e308), "got 1e+308, which is inf in float32 (1 of 1)"),
        (lambda: nj.LIF(tau_mem=1e-50), "got 1e-50, which is 0 in float32"),
        (lambda: nj.LIF(v_rest=1e-40), "got 1e-40, which is 1e-40 in float32"),
        (lambda: nj.ThreeFactor(kappa_e=-1e-60), "kappa_e must lie in [0, 1]; got -1e-60"),
        (lambda: hw.linear(10**40), "got 1e+40, which is inf in float32"),
        (lambda: nj.LIF(tau_mem="20"), "tau_mem must be finite and > 0 ms; got '20'"),
        (lambda: nj.LIF(tau_mem=10**400), "tau_mem must be finite and > 0 ms; got 1000"),
        (lambda: nj.LIF(tau_mem=1j), "tau_mem must be finite and > 0 ms; got 1j"),
    ],
)
def test_a_parameter_is_refused_by_what_it_is_where_it_is_kept(make, message, untyped):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_double_precision_holds_what_single_does_not(x64):
    assert float(nj.LIF(tau_mem=1e308).tau_mem) == 1e308


def test_a_trained_parameter_that_has_become_tiny_stays():
    tiny = jnp.full((), 1e-40, jnp.float32)
    assert nj.LIF(v_rest=tiny).v_rest == tiny


# --- sizes are refused by what they would take ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: nj.fan_in(jax.random.key(0), 10**6, 10**6, 0.5),
        lambda: nj.bernoulli(jax.random.key(0), 10**7, 10**7, 0.5),
        lambda: nj.watts_strogatz(jax.random.key(0), 10**8, 10**8, 1000, 0.1),
        lambda: nj.locally_dense(jax.random.key(0), 10**8, 1000, 0.1),
        lambda: nj.normal(jax.random.key(0), nj.Dense(10**6, 10**6), 1.0),
        lambda: nj.broadcast(jax.random.key(0), 10**9, 1001),
        lambda: nj.LIF().init((10**9, 10**9)),
        lambda: nj.Delay(10**9).init((10**3,)),
        lambda: nj.encoding.latency(jnp.ones(1000), 10**9),
        lambda: nj.encoding.population(jnp.ones(1), 10**9),
        lambda: nj.modulators(jax.random.key(0), 10**9, {"h": 1000}),
        lambda: hw.varied(jax.random.key(0), hw.Device(hw.linear(8)), (10**9, 10**9), 0.1),
        lambda: routing.unicast(
            topology.Edges(*jnp.zeros((3, 0), int)), jnp.zeros(1, int),
            topology.Mesh(40000, 40000, 1), jnp.zeros(1),
        ),
    ],
)  # fmt: skip
def test_a_size_is_refused_by_what_it_would_take(make, monkeypatch):
    monkeypatch.setattr(_memory, "memory", lambda: 24 * 2**30)
    with pytest.raises(ValueError, match=r"would take \d[\d.]* [GTPE]B; this machine has 25.8 GB$"):
        make()


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [(999, "999 bytes"), (37 * 10**12, "37 TB"), (10**18, "1 EB"), (10**400, "over EB")],
)
def test_bytes_are_spelt_as_one_says_them(n_bytes, said):
    assert _memory.spelt(n_bytes) == said


@pytest.mark.parametrize(
    "make",
    [
        lambda: hw.querlioz(1e9, 1.0),
        lambda: hw.power(1e9, 1.0),
        lambda: hw.exp_step(1e9),
        lambda: hw.piecewise(1e9, jnp.ones(3)),
        lambda: hw.querlioz(8, 1.0)(jnp.zeros(1), jnp.full(1, 1e9)),
        lambda: hw.WriteVerify(hw.OneSide(hw.Train(8)), rounds=10**9),
        lambda: nj.metrics.small_world(jax.random.key(0), nj.one_to_one(9), n_random=10**9),
        lambda: topology.Mesh(10**9, 10**9, 1),
        lambda: nj.Dense(10**30, 1),
        lambda: nj.EIF(substeps=10**9),
        lambda: nj.AdEx(substeps=10**9),
    ],
)
def test_what_would_take_for_ever_is_refused_at_once(make):
    with pytest.raises(ValueError, match=r"must .*; got"):
        make()
