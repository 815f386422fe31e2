"""Networks and what they are held against: runs in pieces, bands, refusals, the command."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import neurojax as nj
from experiments import _run, networks
from experiments._networks import (
    STUDIES,
    brette,
    brunel,
    izhikevich,
    judged,
    potjans,
    runs,
    seen,
    song,
)


def command(*argv):
    """Exit code of the command, run here."""
    try:
        _run.main(networks.Config, networks.judged, list(map(str, argv)))
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.slow
def test_the_command_writes_what_it_found_and_ends_with_whether_it_agrees(tmp_path, capsys):
    small = ["cuba", "--scale", 0.05, "--seconds", 0.3, "--seeds", 2, "--out", tmp_path]
    code = command(*small)
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert [x["seed"] for x in told["found"]] == [0, 1]
    rows = {row["statistic"]: row for row in told["table"]}
    rate = rows["rate"]
    assert rate["values"] == [x["rate"] for x in told["found"]]
    assert rate["agrees"] == (rate["low"] <= np.mean(rate["values"]) <= rate["high"])
    assert code == (0 if all(row["agrees"] for row in rows.values()) else 1)
    assert (tmp_path / "network.png").stat().st_size > 5000
    shown = capsys.readouterr().out
    assert all(name in shown for name in rows)
    # of finished seeds the parts are read: nothing runs again
    assert command(*small, "--resume") == code
    again = json.loads((tmp_path / "metrics.json").read_text())
    assert again["found"] == told["found"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["tuba"], "cuba"),
        (["cuba", "--scale", 0.01], "--scale must be in [0.02, 1]; got 0.01"),
        (["brunel", "--scale", 0.09], "--scale must be in [0.1, 1]; got 0.09"),
        (["cuba", "--scale", 1e9], "--scale must be in [0.02, 1]; got 1000000000.0"),
        (["cuba", "--seconds", 0.2], "--seconds must be in [0.3, 1000]; got 0.2"),
        (["song", "--seconds", "nan"], "--seconds must be in [1, 1000]; got nan"),
        (["cuba", "--seed", 2**32 - 4], "--seed must be a whole number <= 4294967291; got"),
        (["cuba", "--seeds", 0], "--seeds must be a whole number >= 1; got 0"),
        (["izhikevich-patterns", "--seeds", 3], "--seeds must be 1, as izhikevich-patterns"),
        (["izhikevich-patterns", "--scale", 0.5], "--scale must be left out"),
    ],
)
def test_refuses_in_a_line(tmp_path, capsys, argv, message):
    assert command(*argv, "--out", tmp_path / "none") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_run_in_pieces_is_the_run_in_one(monkeypatch):
    made = brette.cuba(jax.random.key(0), 0.05)
    run = lambda: runs.watched(made, "cells", seconds=0.03, dt=0.1, key=jax.random.key(1))  # noqa: E731
    whole = run()
    monkeypatch.setattr(runs, "_PIECE", 100 * 200)
    pieces = run()
    assert whole.times.size > 10
    np.testing.assert_allclose(pieces.times, whole.times)
    np.testing.assert_array_equal(pieces.neurons, whole.neurons)


def test_pieces_are_few_and_mostly_of_one_length():
    assert runs._parts(300, 100) == [100] * 3
    assert runs._parts(301, 100) == [43] * 7
    assert runs._parts(307, 100) == [76, 77, 77, 77]
    assert runs._parts(7, 0) == [1] * 7
    assert runs._parts(12, 5) == [4] * 3


@pytest.mark.parametrize("make", [brette.cuba, brette.coba])
def test_a_balanced_network_is_wired_as_published(make):
    made, n_exc, n_inh = make(jax.random.key(0), 0.05), 160, 40
    pre = {}
    for port in ("exc", "inh"):
        p = made.net.projections[port]
        pre[port] = np.asarray(p.connectivity.edges().pre)
        assert (p.port, p.delay) == (port, 1)
        n, chance = {"exc": n_exc, "inh": n_inh}[port] * 200, 0.4
        assert abs(p.n_synapses - n * chance) < 5 * math.sqrt(n * chance * (1 - chance))
    assert pre["exc"].max() < n_exc <= pre["inh"].min()


def test_rates_of_mean_field_theory():
    # solved anew for these states by another program: 327.0, 55.84, 37.95, 6.52 Hz
    expected = {"A": 327.01, "B": 55.841, "C": 37.950, "D": 6.517}
    for name, at in brunel.CONDITIONS.items():
        assert brunel.mean_field(at) == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.slow
def test_a_neuron_of_brunels_network_jumps_by_j_and_hears_what_is_said(monkeypatch):
    monkeypatch.setattr(brunel, "C_EXC", 16)
    monkeypatch.setattr(brunel, "C_INH", 4)
    wiring, n_exc = brunel.wired(jax.random.key(0), 0.005)
    pre, post, _ = (np.asarray(x) for x in wiring.edges())
    assert (np.bincount(post[pre < n_exc]) == 16).all()
    assert (np.bincount(post[pre >= n_exc]) == 4).all()
    made = brunel.brunel(jax.random.key(0), wiring, n_exc, brunel.Condition(5.0, 0.0))
    held = made.net.init_weights(jax.random.key(0))
    z = jnp.zeros(wiring.n_pre).at[pre[0]].set(1.0)
    state = made.net.init()
    for _ in range(15):
        state = state._replace(sent=state.sent | {"cells": z})
        state, _ = made.net.step(held, state, {}, dt=0.1, key=jax.random.key(0))
        z = jnp.zeros_like(z)
    v = np.asarray(state.neurons["cells"].v)
    np.testing.assert_allclose(v[post[pre == pre[0]]], brunel.J, rtol=1e-6)
    assert (v != 0).sum() == (pre == pre[0]).sum()


@pytest.mark.slow
def test_a_part_of_the_microcircuit_hears_in_mean_and_variance_what_the_whole_does():
    scale = 0.02
    made = potjans.potjans(jax.random.key(0), scale)
    kind, n = np.repeat(np.arange(8), potjans.scaled(scale)), potjans.scaled(scale)
    within, outside = (made.net.projections[name] for name in ("within", "in"))
    pre, post, _ = (np.asarray(x) for x in within.connectivity.edges())
    w, of, to = np.asarray(within.w, float), kind[pre], kind[post]
    assert ((w < 0) == (of % 2 == 1)).all()
    # as many synapses between populations as the scale leaves, rounded
    into = np.bincount(8 * to + of, minlength=64).reshape(8, 8)
    whole = potjans.TOTAL / potjans.SIZES[:, None]
    np.testing.assert_allclose(into, whole * scale * (potjans.SIZES * scale)[:, None], atol=0.51)
    # current (nA) and its variance per second: of one neuron of each population, in the mean
    neuron, source = made.net.layers["cells"].neuron, made.net.layers["outside"].neuron
    held = np.bincount(kind, (np.asarray(neuron.v_rest, float) + 65) / potjans.R_MEM) / n
    rate, w_out = potjans.WHOLE[of], float(outside.w[0, 0])
    out = np.bincount(kind, np.asarray(source.n_inputs, float)) / n * potjans.BACKGROUND
    tau = potjans.TAU_SYN / 1000
    mean = tau * (np.bincount(to, w * rate) / n + w_out * out) + held
    var = np.bincount(to, w**2 * rate) / n + w_out**2 * out
    rates, every = potjans.WHOLE, potjans.W * potjans.OUTSIDE * potjans.BACKGROUND
    expected = tau * ((whole * potjans.MEAN * rates).sum(1) + every)
    expected_var = (whole * potjans.MEAN**2 * 1.01 * rates).sum(1) + potjans.W * every
    # of weights that spread by a tenth: their error, and 1% of sizes that were rounded
    by = 4 * 0.1 * tau * np.sqrt(np.bincount(to, (w * rate) ** 2)) / n
    assert (abs(mean - expected) < by + 0.01 * tau * np.bincount(to, abs(w) * rate) / n).all()
    np.testing.assert_allclose(var, expected_var, rtol=0.02)
    late = np.asarray(within.delays.steps) * potjans.DT
    for inhibits, ms in enumerate(potjans.LATE):
        # normal above half a step: mean and spread are those of SciPy's truncated distribution
        law = scipy.stats.truncnorm(0.05 / (0.5 * ms) - 2, 6, loc=ms, scale=0.5 * ms)
        own = late[of % 2 == inhibits]
        assert abs(own.mean() - law.mean()) < 4 * law.std() / math.sqrt(own.size)
        assert abs(own.std() / law.std() - 1) < 4 / math.sqrt(2 * own.size) + 0.005  # of the grid


def test_the_microcircuit_is_held_against_its_own_size():
    others, _ = judged.recorded("potjans")
    tenth = [x | {"scale": 0.1} for x in others]
    rows = potjans._judged(tenth[:5])
    assert len(rows) == 32
    assert all(row.agrees for row in rows)
    assert {row.source for row in potjans._judged([x | {"scale": 1} for x in others])} == {
        "NEST, all of it"
    }
    faster = [x | {f"rate_{a}": 1.2 * x[f"rate_{a}"] for a in range(8)} for x in tenth]
    assert [row.agrees for row in potjans._judged(faster) if row.statistic.endswith(" rate")] == [
        a == 0
        for a in range(8)  # of that rate the seeds spread by a tenth
    ]
    whole = [{"scale": 1} | {f"rate_{a}": r for a, r in enumerate(potjans.WHOLE)}] * 2
    assert all(row.agrees for row in potjans._judged(whole))


@pytest.mark.slow
def test_the_synapses_of_song_have_their_bounds_and_move_apart():
    found = song._once(0, 1.0, 2.0, None)
    w = np.array(found["all"])
    assert (w.min(), w.max()) == (0.0, 1.0)
    assert 2 * (1 / 12) > w.var() > 1.05 / 12  # of a uniform start 1/12


def test_patterns_are_those_of_the_figure():
    with jax.enable_x64(True):
        for p in (izhikevich.PATTERNS[0], izhikevich.PATTERNS[17]):
            t, _, z = izhikevich.trace(p)
            assert z.sum() == p.spikes
            assert t[z][-1] > (310 if p.name == "accommodation" else 80)


def test_a_band_holds_the_mean_and_no_more():
    row = lambda *values: judged.within("x", "Hz", values, 1.0, 2.0, "closed form")  # noqa: E731
    assert row(1.0, 3.0).agrees  # their mean is 2
    assert not row(1.0, 3.1).agrees
    assert not row(1.5, math.nan).agrees
    assert row(1.0, 3.0).told() | {"sd": 0} == {
        "statistic": "x", "unit": "Hz", "values": [1.0, 3.0], "reference": 1.5, "low": 1.0,
        "high": 2.0, "source": "closed form", "mean": 2.0, "sd": 0, "agrees": True,
    }  # fmt: skip
    assert row(math.nan).told()["values"] == [None]


def test_two_simulators_agree_within_four_standard_errors_and_two_percent():
    others = [9.0, 11.0, 9.0, 11.0]  # variance 4/3, of the mean 1/3
    by = 4 * math.sqrt(1 / 3) + 0.2
    for off in (-by, by):
        assert judged.alike("x", "", [10 + 0.999 * off], others, "").agrees
        assert not judged.alike("x", "", [10 + 1.001 * off], others, "").agrees
    wide = judged.alike("x", "", [8.0, 12.0], others, "")  # variance 8, of the mean 4
    assert wide.high == pytest.approx(10 + 4 * math.sqrt(1 / 3 + 4) + 0.2)


def test_distributions_agree_that_are_no_farther_than_seeds_of_the_other():
    q = np.linspace(0, 1, 101)
    others = [q, q + 0.05, q - 0.05]
    assert judged.distance("x", [q + 0.02], others, "").agrees
    assert not judged.distance("x", [q + 0.2], others, "").agrees
    assert judged.distance("x", [q], others, "").high == pytest.approx(0.1, abs=0.011)


def test_what_is_drawn_keeps_groups_and_times():
    z = np.zeros((100, 20), bool)
    z[90, :] = z[10, 3] = True
    shown = seen.raster(nj.spikes.trains(z, dt=0.1), [16, 4], last=5.0, shown=10)
    assert shown["groups"] == [8, 2]
    assert shown["times"] == [9.1] * 10
    assert (shown["start"], shown["end"]) == (5.0, 10.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_each_network_agrees_with_its_reference(name, tmp_path):
    assert command(name, "--out", tmp_path) == 0
