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


def row(parameters, times):
    """Parameters, how many spikes, and the first five, ms."""
    return [*parameters, len(times), [round(t, 4) for t in times[:5]]]


if __name__ == "__main__":
    found = {"AdEx": [row(p, adex(*p)) for p in ADEX.values()]}
    json.dump(found, sys.stdout, indent=1)
