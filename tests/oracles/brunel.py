"""Record what a plain loop makes of Brunel's network, states B, C and D, at full size.

    python tests/oracles/brunel.py

In NumPy, in double precision, 1.1 s from three seeds each.
"""

import json
from pathlib import Path

import numpy as np
from scipy.signal import welch

OUT = Path(__file__).parents[2] / "experiments/_networks/references.json"
N_EXC, N_INH, C_EXC, C_INH = 10_000, 2_500, 1_000, 250
DT, T, SKIP, DELAY, REFRACTORY, J = 0.1, 11_000, 1_000, 15, 20, 0.1  # ms, steps, mV
STATES = {"B": (6.0, 40.0), "C": (5.0, 20.0), "D": (4.5, 9.0)}  # g, Hz of an external train
SEEDS = 3


def wiring(rng):
    """Receivers of each neuron, one list after another, and where each begins."""
    n = N_EXC + N_INH
    pre = np.empty((n, C_EXC + C_INH), np.int32)
    for i in range(n):
        pre[i, :C_EXC] = rng.choice(N_EXC, C_EXC, replace=False)
        pre[i, C_EXC:] = N_EXC + rng.choice(N_INH, C_INH, replace=False)
    order = np.argsort(pre.ravel(), kind="stable")
    start = np.searchsorted(pre.ravel()[order], np.arange(n + 1))
    return (order // pre.shape[1]).astype(np.int32), start


def spikes(rng, post, start, g: float, rate: float) -> np.ndarray:
    """Spikes [T, n]: decay, arrivals, threshold, in each step."""
    n = N_EXC + N_INH
    v, silent = rng.uniform(0, 20, n), np.zeros(n, int)
    due, z = np.zeros((DELAY, n)), np.zeros((T, n), bool)
    left = np.exp(-DT / 20)
    for t in range(T):
        arrived = J * rng.poisson(C_EXC * rate * DT / 1000, n) + due[t % DELAY]
        v = np.where(silent > 0, v, left * v + arrived)
        fired = np.flatnonzero(v >= 20)
        z[t, fired] = True
        silent = np.maximum(silent - 1, 0)
        v[fired], silent[fired] = 10, REFRACTORY
        sent = np.zeros(n)
        for group, w in ((fired[fired < N_EXC], J), (fired[fired >= N_EXC], -g * J)):
            if group.size:
                reached = np.concatenate([post[start[j] : start[j + 1]] for j in group])
                sent += w * np.bincount(reached, minlength=n)
        due[t % DELAY] = sent
    return z


def statistics(z: np.ndarray, low: float, high: float) -> dict[str, float]:
    """Rate, CV of intervals, and the frequency of the population's largest power."""
    z = z[SKIP:]
    own = (np.diff(np.flatnonzero(x)) for x in z.T)
    cvs = [x.std() / x.mean() for x in own if len(x) >= 4]
    total = z.sum(1).reshape(-1, 10).sum(1)
    f, power = welch(total, fs=1000, nperseg=round(4000 / low))
    inside = (f >= low) & (f <= high)
    return {
        "rate": z.mean() * 1000 / DT, "cv": float(np.mean(cvs)),
        "rhythm": float(f[inside][power[inside].argmax()]),
    }  # fmt: skip


def main() -> None:
    """Write the statistics beside those of other networks."""
    seeds = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        wired, found = wiring(rng), {}
        for name, at in STATES.items():
            band = (10.0, 50.0) if name == "D" else (100.0, 300.0)
            told = statistics(spikes(rng, *wired, *at), *band)
            found |= {f"{k}_{name}": x for k, x in told.items()}
            print(seed, name, told, flush=True)  # noqa: T201
        seeds.append(found)
        known = json.loads(OUT.read_text()) if OUT.exists() else {}
        known["brunel"] = {"by": "a loop in NumPy", "seeds": seeds}
        OUT.write_text(json.dumps(known) + "\n")


if __name__ == "__main__":
    main()
