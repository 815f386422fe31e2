"""Record what Brian2 makes of the networks of `experiments.networks`, each from eight seeds.

    path/to/peer/python tests/oracles/brian2_benchmarks.py cuba coba ...

Means over neurons, and quantiles of their distributions, go into
`experiments/_networks/references.json`. A wiring and a start of its own for each seed.
"""

import json
import sys
from pathlib import Path

import brian2 as b2
import numpy as np
from brian2 import ms, mV, nS

OUT = Path(__file__).parents[2] / "experiments/_networks/references.json"
SEEDS, SKIP = 8, 200.0  # ms
DT = 0.1 * ms


def cuba(method="exact"):
    """Brette et al. (2007), benchmark 2."""
    yield 2200.0
    cells = b2.NeuronGroup(
        4000,
        """dv/dt = (ge + gi - (v - El)) / (20*ms) : volt (unless refractory)
           dge/dt = -ge / (5*ms) : volt
           dgi/dt = -gi / (10*ms) : volt""",
        threshold="v >= -50*mV",
        reset="v = -60*mV",
        refractory=5 * ms + DT,  # the step of the spike counts
        method=method,
        namespace={"El": -49 * mV},
    )
    cells.v = "-60*mV + rand() * 10*mV"
    yield cells
    yield from _balanced(cells, 1.62 * mV, -9 * mV)


def coba(method="rk2"):
    """Brette et al. (2007), benchmark 1."""
    yield 2200.0
    cells = b2.NeuronGroup(
        4000,
        """dv/dt = (10*nS*(-60*mV - v) + ge*(0*mV - v) + gi*(-80*mV - v)) / (200*pF)
               : volt (unless refractory)
           dge/dt = -ge / (5*ms) : siemens
           dgi/dt = -gi / (10*ms) : siemens""",
        threshold="v >= -50*mV",
        reset="v = -60*mV",
        refractory=5 * ms + DT,
        method=method,
    )
    _start(cells)
    yield cells
    yield from _balanced(cells, 6 * nS, 67 * nS)


def cobahh(method="rk4"):
    """Brette et al. (2007), benchmark 3."""
    yield 1200.0
    cells = b2.NeuronGroup(
        4000,
        """dv/dt = (10*nS*(-60*mV - v) + ge*(0*mV - v) + gi*(-80*mV - v)
                    - 20*uS*m**3*h*(v - 50*mV) - 6*uS*n**4*(v + 90*mV)) / (200*pF) : volt
           dm/dt = am*(1 - m) - bm*m : 1
           dn/dt = an*(1 - n) - bn*n : 1
           dh/dt = ah*(1 - h) - bh*h : 1
           dge/dt = -ge / (5*ms) : siemens
           dgi/dt = -gi / (10*ms) : siemens
           u = v + 63*mV : volt
           am = .32*4 / exprel((13*mV - u)/(4*mV)) / ms : Hz
           bm = .28*5 / exprel((u - 40*mV)/(5*mV)) / ms : Hz
           an = .032*5 / exprel((15*mV - u)/(5*mV)) / ms : Hz
           bn = .5*exp((10*mV - u)/(40*mV)) / ms : Hz
           ah = .128*exp((17*mV - u)/(18*mV)) / ms : Hz
           bh = 4 / (1 + exp((40*mV - u)/(5*mV))) / ms : Hz""",
        threshold="v > -20*mV",
        refractory="v > -20*mV",  # each upward crossing: in bursts they are 2.1 ms apart
        method=method,
        dt=DT / 2,
    )
    _start(cells)
    yield cells
    yield from _balanced(cells, 6 * nS, 67 * nS)


def _start(cells):
    """Spread widely: from rest, or from narrower starts, activity may not outlive 100 ms."""
    cells.v = "-60*mV + (randn() * 5 - 5) * mV"
    cells.ge = "clip(30 + 20*randn(), 0, 1e6) * nS"
    cells.gi = "clip(250 + 250*randn(), 0, 1e6) * nS"


def _balanced(cells, w_exc, w_inh):
    for part, variable, w in ((cells[:3200], "ge", w_exc), (cells[3200:], "gi", w_inh)):
        synapses = b2.Synapses(
            part, cells, on_pre=f"{variable} += w", delay=DT, namespace={"w": w}
        )  # fmt: skip
        synapses.connect(p=0.02)
        yield synapses


def song(seed: int):
    """Song, Miller and Abbott (2000): weights after 100 s, and what the neuron did."""
    b2.device.reinit()
    b2.device.activate(build_on_run=False)
    b2.start_scope()
    b2.seed(seed)
    b2.defaultclock.dt = 0.5 * ms
    inputs = b2.PoissonGroup(1000, rates=15 * b2.Hz)
    cell = b2.NeuronGroup(
        1,
        """dv/dt = (ge * (0*mV - v) - 74*mV - v) / (10*ms) : volt
           dge/dt = -ge / (5*ms) : 1""",
        threshold="v >= -54*mV", reset="v = -60*mV", method="rk2",
    )  # fmt: skip
    cell.v = -74 * mV
    synapses = b2.Synapses(
        inputs, cell,
        """w : 1
           dx/dt = -x / (20*ms) : 1 (event-driven)
           dy/dt = -y / (20*ms) : 1 (event-driven)""",
        on_pre="""ge += w
                  x += .0001
                  w = clip(w + y, 0, .01)""",
        on_post="""y -= .000105
                   w = clip(w + x, 0, .01)""",
    )  # fmt: skip
    synapses.connect()
    synapses.w = "rand() * .01"
    monitor = b2.SpikeMonitor(cell)
    network = b2.Network(inputs, cell, synapses, monitor)
    network.run(100 * b2.second)
    b2.device.build(directory="/tmp/brian2-song", run=True)
    w, times = np.asarray(synapses.w) / 0.01, monitor.t / b2.second
    found = {"mean": w.mean(), "weak": (w < 0.1).mean(), "strong": (w > 0.9).mean()}
    found["rate"] = (times > 80).sum() / 20
    return {k: round(float(x), 6) for k, x in found.items()} | {
        "weights": np.quantile(w, np.linspace(0, 1, 101)).round(4).tolist()
    }


def vogels(seed: int):
    """Vogels et al. (2011), a fifth of it: before inhibition has learnt, and after 10 s."""
    b2.device.reinit()
    b2.device.activate(build_on_run=False)
    b2.start_scope()
    b2.seed(seed)
    b2.defaultclock.dt = DT
    cells = b2.NeuronGroup(
        2000,
        """dv/dt = (10*nS*(-40*mV - v) + ge*(0*mV - v) + gi*(-80*mV - v)) / (200*pF)
               : volt (unless refractory)
           dge/dt = -ge / (5*ms) : siemens
           dgi/dt = -gi / (10*ms) : siemens""",
        threshold="v >= -50*mV", reset="v = -60*mV", refractory=5 * ms + DT, method="rk2",
    )  # fmt: skip
    cells.v = "-60*mV + rand() * 10*mV"
    exc, inh = cells[:1600], cells[1600:]
    to_all = b2.Synapses(exc, cells, on_pre="ge += .3*nS", delay=DT)
    to_inh = b2.Synapses(inh, inh, on_pre="gi += 3*nS", delay=DT)
    learns = b2.Synapses(
        inh, exc,
        """w : 1
           dx/dt = -x / (20*ms) : 1 (event-driven)
           dy/dt = -y / (20*ms) : 1 (event-driven)""",
        on_pre="""gi += w*nS
                  x += 1
                  w = clip(w + eta(t) * (y - .12), 0, 100)""",
        on_post="""y += 1
                   w = clip(w + eta(t) * x, 0, 100)""",
        delay=DT,
        namespace={"eta": b2.TimedArray([0.0] + [1.0] * 20, dt=500 * ms)},
    )  # fmt: skip
    for synapses in (to_all, to_inh, learns):
        synapses.connect(p=0.1)
    monitor = b2.SpikeMonitor(cells)
    network = b2.Network(cells, to_all, to_inh, learns, monitor)
    network.run(10.5 * b2.second)
    b2.device.build(directory="/tmp/brian2-vogels", run=True)
    times, neurons = monitor.t / ms, np.asarray(monitor.i)
    found = {}
    for name, begin, end in (("before", 200.0, 500.0), ("after", 8000.0, 10500.0)):
        kept = (times > begin + 0.05) & (neurons < 1600)
        kept &= times < end + 0.05
        t, i = times[kept], neurons[kept]
        own = [np.sort(t[i == j]) for j in range(1600)]
        rates = np.array([len(x) for x in own]) * 1000 / (end - begin)
        cvs = [x.std() / x.mean() for x in (np.diff(x) for x in own) if len(x) > 1]
        bins = np.arange(begin, end + 1, 5.0) + 0.05
        counts = np.array([np.histogram(x, bins)[0] for x in own])
        found |= {
            f"rate_{name}": rates.mean(), f"spread_{name}": rates.std(), f"cv_{name}": np.mean(cvs),
            f"synchrony_{name}": np.sqrt(counts.mean(0).var() / counts.var(1).mean()),
        }  # fmt: skip
    return {k: round(float(x), 6) for k, x in found.items()}


SIZES = np.array([20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948])
CHANCE = [  # L2/3E, L2/3I, L4E, L4I, L5E, L5I, L6E, L6I
    [0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0],
    [0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0],
    [0.0077, 0.0059, 0.0497, 0.135, 0.0067, 0.0003, 0.0453, 0.0],
    [0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0],
    [0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0],
    [0.0548, 0.0269, 0.0257, 0.0022, 0.06, 0.3158, 0.0086, 0.0],
    [0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252],
    [0.0364, 0.001, 0.0034, 0.0005, 0.0277, 0.008, 0.0658, 0.1443],
]
OUTSIDE = [1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100]
FULL = [0.903, 2.965, 4.414, 5.876, 7.569, 8.633, 1.105, 7.829]  # Hz, NEST


def potjans(seed: int):
    """Potjans and Diesmann (2014), a tenth of neurons and of synapses a neuron: eight populations.

    Ends of each synapse are drawn alone. Weights grow by 1 / sqrt(.1), and a current makes up for
    the mean that is lost, at the rates of the whole.
    """
    b2.device.reinit()
    b2.device.activate(build_on_run=False)
    b2.start_scope()
    b2.seed(seed)
    b2.defaultclock.dt = DT
    rng, scale, w = np.random.default_rng(seed), 0.1, 87.8  # pA
    sizes = np.rint(SIZES * scale).astype(int)
    first = np.concatenate([[0], np.cumsum(sizes)])
    cells = b2.NeuronGroup(
        first[-1],
        """dv/dt = (-65*mV - v) / (10*ms) + (psc + held) / (250*pF) : volt (unless refractory)
           dpsc/dt = -psc / (.5*ms) : amp
           held : amp (constant)""",
        threshold="v >= -50*mV",
        reset="v = -65*mV",
        refractory=2 * ms + DT,
        method="exact",
    )
    cells.v = "-58*mV + randn() * 10*mV"
    pre, post, weight, delay, parts = [], [], [], [], [cells]
    for a, (n_a, m_a) in enumerate(zip(SIZES, sizes, strict=True)):
        lost = w * OUTSIDE[a] * 8.0
        for b, (n_b, m_b) in enumerate(zip(SIZES, sizes, strict=True)):
            total = np.log1p(-CHANCE[a][b]) / np.log1p(-1 / (n_a * n_b))
            k, mean = round(total * scale**2), w * (-4 if b % 2 else 2 if (a, b) == (0, 2) else 1)
            lost += mean * total / n_a * FULL[b]
            pre.append(first[b] + rng.integers(m_b, size=k))
            post.append(first[a] + rng.integers(m_a, size=k))
            weight.append(rng.normal(mean, 0.1 * abs(mean), k) / np.sqrt(scale))
            late = rng.normal(1, 0.5, k) * (0.75 if b % 2 else 1.5)
            while (late < 0.05).any():  # what is shorter than half a step is drawn again
                again = late < 0.05
                late[again] = rng.normal(1, 0.5, again.sum()) * (0.75 if b % 2 else 1.5)
            delay.append(np.maximum(np.rint(late / 0.1), 1) * 0.1)
        own = cells[first[a] : first[a + 1]]
        own.held = (1 - np.sqrt(scale)) * lost * 0.5e-3 * b2.pA
        parts.append(
            b2.PoissonInput(own, "psc", round(OUTSIDE[a] * scale), 8 * b2.Hz,
                            w / np.sqrt(scale) * b2.pA)
        )  # fmt: skip
    synapses = b2.Synapses(cells, cells, "w : amp (constant)", on_pre="psc += w")
    synapses.connect(i=np.concatenate(pre), j=np.concatenate(post))
    synapses.w = np.concatenate(weight) * b2.pA
    synapses.delay = np.concatenate(delay) * ms
    monitor = b2.SpikeMonitor(cells)
    network = b2.Network(*parts, synapses, monitor)
    network.run(1500 * ms)
    b2.device.build(directory="/tmp/brian2-potjans", run=True)
    times, neurons = monitor.t / ms, np.asarray(monitor.i)
    found = {}
    for a in range(8):
        spikes = [np.sort(times[neurons == j]) for j in range(first[a], first[a + 1])]
        told = statistics(spikes, 1500.0, skip=500.0)
        found |= {f"{k}_{a}": told[k] for k in ("rate", "cv", "correlation", "rates")}
    return found


NETWORKS = {f.__name__: f for f in (cuba, coba, cobahh)}


def run(make, seed: int):
    """Spike times (ms) of each neuron of one run, and how long it was, ms."""
    b2.device.reinit()
    b2.device.activate(build_on_run=False)
    b2.start_scope()
    b2.seed(seed)
    b2.defaultclock.dt = DT
    duration, cells, *synapses = make()
    monitor = b2.SpikeMonitor(cells)
    network = b2.Network(cells, *synapses, monitor)
    network.run(duration * ms)
    b2.device.build(directory=f"/tmp/brian2-{make.__name__}", run=True)
    times, neurons = monitor.t / ms, np.asarray(monitor.i)
    return [np.sort(times[neurons == i]) for i in range(len(cells))], duration


def statistics(spikes, duration: float, skip: float = SKIP):
    """What is compared, of spikes after the first `skip` ms."""
    spikes = [t[t > skip] for t in spikes]
    rates = np.array([len(t) for t in spikes]) * 1000 / (duration - skip)
    intervals = [np.diff(t) for t in spikes if len(t) > 2]
    cvs = np.array([x.std() / x.mean() for x in intervals])
    bins = np.arange(skip, duration + 1, 5.0) + 0.05
    counts = np.array([np.histogram(t, bins)[0] for t in spikes])
    counts = counts[counts.std(1) > 0]
    c = np.corrcoef(counts)
    found = {"rate": rates.mean(), "cv": cvs.mean()}
    found["correlation"] = c[np.triu_indices_from(c, 1)].mean()
    quantiles = {
        f"{k}s": np.quantile(x, np.linspace(0, 1, 101)) for k, x in (("rate", rates), ("cv", cvs))
    }
    return {k: round(float(x), 6) for k, x in found.items()} | {
        k: np.round(x, 4).tolist() for k, x in quantiles.items()
    }


def main(names) -> None:
    """Make the networks named, and write them beside the others."""
    b2.set_device("cpp_standalone", build_on_run=False)
    b2.prefs.codegen.cpp.extra_compile_args_gcc = ["-O3", "-march=native"]
    for name in names:
        seeds = []
        for seed in range(SEEDS):
            own = {"song": song, "vogels": vogels, "potjans": potjans}.get(name)
            seeds.append(own(seed) if own else statistics(*run(NETWORKS[name], seed)))
            told = {k: x for k, x in seeds[-1].items() if isinstance(x, float)}
            print(name, seed, told, flush=True)  # noqa: T201
            known = json.loads(OUT.read_text()) if OUT.exists() else {}
            known |= {name: {"by": f"Brian2 {b2.__version__}", "seeds": seeds}}
            OUT.write_text(json.dumps(known, indent=None) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or [*NETWORKS, "song", "vogels", "potjans"])
