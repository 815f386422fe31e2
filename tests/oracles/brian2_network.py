"""Record what Brian2 makes of the network of `benchmarks/sparse_network.py`.

    path/to/peer/python tests/oracles/brian2_network.py

Spikes of 500 neurons for 200 ms, and the statistics of 2,000 neurons from eight starts.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__)
SMALL, LARGE, STARTS = (500, 0.2), (2000, 1.2), 8  # neurons, seconds


def main() -> None:
    """Write `brian2_network.json` beside this file."""
    import brian2

    from benchmarks import sparse_network

    def spikes(n, seconds, start):
        brian2.device.reinit()
        brian2.device.activate(build_on_run=False)
        return next(sparse_network.brian2(n, seconds, 0, n, start))[1]

    brian2.set_device("cpp_standalone", build_on_run=False)
    t, i = np.nonzero(spikes(*SMALL, 0))
    found = [sparse_network.statistics(spikes(*LARGE, start)) for start in range(STARTS)]
    made = {"brian2": brian2.__version__, "t": t.tolist(), "i": i.tolist(), "statistics": found}
    HERE.with_suffix(".json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[2]))
    main()
