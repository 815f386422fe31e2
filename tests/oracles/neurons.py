"""Spike times of single neurons, by SciPy's adaptive solvers from equations written anew.

    python tests/oracles/neurons.py > tests/oracles/neurons.json

Parameters are those of the papers, in their units (pF, nS, mV, pA, ms; channels per cm2).
Made with SciPy 1.17, DOP853 and LSODA at rtol 1e-10.
"""

import json
import sys

import numpy as np
from scipy.integrate import solve_ivp

ADEX = {  # C, g_L, E_L, a, tau_w, b, V_r, I: Naud et al. (2008), table 1
    "tonic": (200, 10, -70, 2, 30, 0, -58, 500),
    "adaptation": (200, 12, -70, 2, 300, 60, -58, 500),
    "initial burst": (130, 18, -58, 4, 150, 120, -50, 400),
    "regular bursting": (200, 10, -58, 2, 120, 100, -46, 210),
    "delayed accelerating": (200, 12, -70, -10, 300, 0, -58, 300),
    "delayed regular bursting": (100, 10, -65, -10, 90, 30, -47, 110),
    "transient": (100, 10, -65, 10, 90, 100, -47, 180),
}


def adex(c, g_l, e_l, a, tau_w, b, v_r, i, until=600.0):
    """Spike times, ms, from rest; threshold -50, slope factor 2, peak 0 mV."""

    def slope(_, y):
        v, w = y
        upswing = g_l * 2 * np.exp(min((v + 50) / 2, 30))
        return [(-g_l * (v - e_l) + upswing - w + i) / c, (a * (v - e_l) - w) / tau_w]

    def peak(_, y):
        return y[0]

    peak.terminal, peak.direction = True, 1
    t, y, times = 0.0, [e_l, 0.0], []
    while True:
        run = solve_ivp(slope, (t, until), y, "DOP853", events=peak, rtol=1e-10, atol=1e-10)
        if not run.t_events[0].size:
            return times
        t = float(run.t_events[0][0])
        times.append(t)
        y = [v_r, float(run.y_events[0][0][1]) + b]


def gate(x, alpha, beta):
    return alpha * (1 - x) - beta * x


def ramp(x):
    """x / (1 - exp(-x)), written out: no solver lands on x = 0."""
    return x / (1 - np.exp(-x))


def squid(_, y, i):
    v, m, h, n = y
    current = 120 * m**3 * h * (v - 50) + 36 * n**4 * (v + 77) + 0.3 * (v + 54.387)
    return [
        i - current,
        gate(m, ramp((v + 40) / 10), 4 * np.exp(-(v + 65) / 18)),
        gate(h, 0.07 * np.exp(-(v + 65) / 20), 1 / (1 + np.exp(-(v + 35) / 10))),
        gate(n, 0.1 * ramp((v + 55) / 10), 0.125 * np.exp(-(v + 65) / 80)),
    ]


def traub_miles(_, y, i):
    """pF, nS, pA, as Brette et al. (2007) print it."""
    v, m, h, n = y
    u = v + 63
    current = 20000 * m**3 * h * (v - 50) + 6000 * n**4 * (v + 90) + 10 * (v + 60)
    return [
        (i - current) / 200,
        gate(m, 0.32 * (13 - u) / (np.exp((13 - u) / 4) - 1),
             0.28 * (u - 40) / (np.exp((u - 40) / 5) - 1)),
        gate(h, 0.128 * np.exp((17 - u) / 18), 4 / (1 + np.exp((40 - u) / 5))),
        gate(n, 0.032 * (15 - u) / (np.exp((15 - u) / 5) - 1), 0.5 * np.exp((10 - u) / 40)),
    ]  # fmt: skip


def wang_buzsaki(_, y, i):
    v, h, n = y
    alpha, beta = ramp((v + 35) / 10), 4 * np.exp(-(v + 60) / 18)
    m = alpha / (alpha + beta)
    current = 35 * m**3 * h * (v - 55) + 9 * n**4 * (v + 90) + 0.1 * (v + 65)
    return [
        i - current,
        5 * gate(h, 0.07 * np.exp(-(v + 58) / 20), 1 / (np.exp(-0.1 * (v + 28)) + 1)),
        5 * gate(n, 0.1 * ramp((v + 34) / 10), 0.125 * np.exp(-(v + 44) / 80)),
    ]


def crossings(slope, v, i, level, until=200.0):
    """Upward crossings, ms, from v held until its gates rest, which LSODA does too."""
    clamp = lambda t, y: [0.0, *slope(t, [v, *y[1:]], i)[1:]]  # noqa: E731
    gates = {"squid": 3, "traub_miles": 3, "wang_buzsaki": 2}[slope.__name__]
    y = solve_ivp(clamp, (0, 2000), [v, *[0.3] * gates], "LSODA", rtol=1e-10, atol=1e-12).y[:, -1]

    def up(_, y):
        return y[0] - level

    up.direction = 1
    free = lambda t, y: slope(t, y, i)  # noqa: E731
    run = solve_ivp(free, (0, until), y, "LSODA", events=up, rtol=1e-10, atol=1e-12)
    return [float(t) for t in run.t_events[0]]


CHANNELS = {  # currents (uA / cm2; pA), start and level (mV)
    "HodgkinHuxley": (squid, (7.0, 10.0, 20.0), -65.0, 0.0),
    "TraubMiles": (traub_miles, (300.0, 500.0, 1000.0), -60.0, -20.0),
    "WangBuzsaki": (wang_buzsaki, (0.5, 1.0, 4.0), -64.0, 0.0),
}


def row(parameters, times):
    """Parameters, how many spikes, and the first five, ms."""
    return [*parameters, len(times), [round(t, 4) for t in times[:5]]]


if __name__ == "__main__":
    found = {"AdEx": [row(p, adex(*p)) for p in ADEX.values()]}
    for name, (slope, currents, v, level) in CHANNELS.items():
        trains = {i: crossings(slope, v, i, level) for i in currents}
        found[name] = [[i, len(t), [round(x, 4) for x in t]] for i, t in trains.items()]
    lines = [f'"{name}": {json.dumps(rows)}' for name, rows in found.items()]
    sys.stdout.write("{" + ",\n".join(lines) + "}\n")
