"""W11 and W12, the networks of Brette et al. (2007): 4,000 neurons, here and in Brian2.

They are those of `experiments.networks`, ours and Brian2's, which are held against one another
there: some 320,000 synapses, currents (CUBA) or conductances (COBA, and COBAHH on neurons with
channels). Each side draws wiring and start on its own, of the same chances. neurojax calculates in
float32 and Brian2, in C++ compiled as a whole, in float64, by the quickest of its methods that
keeps the rates. A biological second is timed, without compiling and building, on one core.
"""

import itertools
import time
from collections.abc import Iterator

import numpy as np

SECONDS, WATCHED, SEED = 1.0, 1000, 3
METHODS = {"cuba": "exact", "coba": "rk2", "cobahh": "exponential_euler"}


def neurojax(name: str) -> Iterator[tuple[float, float]]:
    """Seconds of each run, and the spikes a step of those watched after 200 ms."""
    import jax

    import neurojax as nj
    from experiments._networks import brette

    net, start = getattr(brette, name)(jax.random.key(SEED), 1.0)
    weights, dt = net.init_weights(jax.random.key(1)), brette.DT[name]
    steps, skipped = round(SECONDS * 1000 / dt), round(200 / dt)
    probe = lambda records: records["cells"].z[:WATCHED].astype(bool)  # noqa: E731
    for _ in itertools.count():
        begin = time.process_time()
        _, z = nj.simulate(net, weights, start, {}, n_steps=steps, dt=dt, probe=probe)
        z.block_until_ready()
        yield time.process_time() - begin, float(z[skipped:].mean())


def brian2(name: str) -> Iterator[tuple[float, float]]:
    """The same in Brian2's standalone mode, whose program notes the seconds of each run."""
    import brian2 as b2

    from tests.oracles import brian2_benchmarks as networks

    b2.set_device("cpp_standalone", build_on_run=False)
    b2.seed(0)
    b2.defaultclock.dt = networks.DT
    _, cells, *synapses = getattr(networks, name)(METHODS[name])
    monitor = b2.SpikeMonitor(cells[:WATCHED])
    b2.Network(cells, *synapses, monitor).run(SECONDS * b2.second)
    b2.device.build(directory=None, run=False)
    while True:
        b2.device.run()
        late = np.asarray(monitor.t / b2.ms) > 200
        steps = (SECONDS * 1000 - 200) / (cells.clock.dt / b2.ms)
        yield b2.device._last_run_time, float(late.sum() / WATCHED / steps)
