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


def cuba():
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
        method="exact",
        namespace={"El": -49 * mV},
    )
    cells.v = "-60*mV + rand() * 10*mV"
    yield cells
    yield from _balanced(cells, 1.62 * mV, -9 * mV)


def coba():
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
        method="rk2",
    )
    _start(cells)
    yield cells
    yield from _balanced(cells, 6 * nS, 67 * nS)


def cobahh():
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
        method="rk4",
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


def statistics(spikes, duration: float):
    """What is compared, of spikes after the first 200 ms."""
    spikes = [t[t > SKIP] for t in spikes]
    rates = np.array([len(t) for t in spikes]) * 1000 / (duration - SKIP)
    intervals = [np.diff(t) for t in spikes if len(t) > 2]
    cvs = np.array([x.std() / x.mean() for x in intervals])
    bins = np.arange(SKIP, duration + 1, 5.0) + 0.05
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
            own = {"song": song, "vogels": vogels}.get(name)
            seeds.append(own(seed) if own else statistics(*run(NETWORKS[name], seed)))
            told = {k: x for k, x in seeds[-1].items() if isinstance(x, float)}
            print(name, seed, told, flush=True)  # noqa: T201
            known = json.loads(OUT.read_text()) if OUT.exists() else {}
            known |= {name: {"by": f"Brian2 {b2.__version__}", "seeds": seeds}}
            OUT.write_text(json.dumps(known, indent=None) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or [*NETWORKS, "song", "vogels"])
