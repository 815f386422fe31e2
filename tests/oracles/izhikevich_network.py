"""Record what the program in Izhikevich (2003), figure 3, makes of his network, line by line.

    python tests/oracles/izhikevich_network.py

In NumPy, in double precision, for 5 s from twenty seeds; statistics without neurojax.
"""

import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[2] / "experiments/_networks/references.json"
SEEDS, T, N_EXC, N_INH = 20, 5000, 800, 200


def firings(seed: int) -> np.ndarray:
    """Spikes [T, n] of a run, as the published loop notes them: at the start of a step."""
    rng = np.random.default_rng(seed)
    re, ri = rng.random(N_EXC), rng.random(N_INH)
    a = np.concatenate([0.02 * np.ones(N_EXC), 0.02 + 0.08 * ri])
    b = np.concatenate([0.2 * np.ones(N_EXC), 0.25 - 0.05 * ri])
    c = np.concatenate([-65 + 15 * re**2, -65 * np.ones(N_INH)])
    d = np.concatenate([8 - 6 * re**2, 2 * np.ones(N_INH)])
    n = N_EXC + N_INH
    S = np.concatenate([0.5 * rng.random((n, N_EXC)), -rng.random((n, N_INH))], axis=1)
    v = -65.0 * np.ones(n)
    u = b * v
    z = np.zeros((T, n), bool)
    for t in range(T):
        current = np.concatenate([5 * rng.normal(size=N_EXC), 2 * rng.normal(size=N_INH)])
        fired = v >= 30
        z[t] = fired
        v[fired] = c[fired]
        u[fired] = u[fired] + d[fired]
        current = current + S[:, fired].sum(1)
        v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - u + current)
        v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - u + current)
        u = u + a * (b * v - u)
    return z


def statistics(z: np.ndarray) -> dict:
    """Rates, the slow rhythm of all spikes, and quantiles of rates and CVs."""
    from scipy.signal import welch

    f, power = welch(z.sum(1), fs=1000, nperseg=2000, noverlap=1000)
    slow = (f >= 2) & (f <= 20)
    rates = z.sum(0) * 1000 / T
    cvs = [x.std() / x.mean() for x in (np.diff(np.flatnonzero(x)) for x in z.T) if len(x) > 1]
    q = np.linspace(0, 1, 101)
    return {
        "rate": rates[:N_EXC].mean(), "rate_inh": rates[N_EXC:].mean(),
        "rhythm": f[slow][power[slow].argmax()],
        "rates": np.quantile(rates, q).round(4).tolist(),
        "cvs": np.quantile(cvs, q).round(4).tolist(),
    }  # fmt: skip


def main() -> None:
    """Write the statistics beside those of other networks."""
    seeds = [statistics(firings(seed)) for seed in range(SEEDS)]
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    known["izhikevich-network"] = {"by": "the published program", "seeds": seeds}
    OUT.write_text(json.dumps(known) + "\n")


if __name__ == "__main__":
    main()
