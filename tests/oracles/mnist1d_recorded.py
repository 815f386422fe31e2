"""Records what the package `mnist1d` makes, to compare `neurojax.data.mnist1d` with.

    pip install "mnist1d==0.0.2.post1" && python tests/oracles/mnist1d_recorded.py

It is not one of the tests' own packages: it asks for `requests`, and sets NumPy's global seed.
"""

import json
from pathlib import Path

import numpy as np
from mnist1d.data import get_dataset_args, make_dataset  # pyright: ignore[reportMissingImports]

PICKED = [0, 1, 17, 2500, 4000, 4999]

if __name__ == "__main__":
    found = make_dataset(get_dataset_args())
    x = np.concatenate([found["x"], found["x_test"]])
    labels = np.concatenate([found["y"], found["y_test"]])
    recorded = {
        "package": "mnist1d 0.0.2.post1",
        "which": PICKED,
        "x": [[round(float(v), 9) for v in x[i]] for i in PICKED],
        "labels": "".join(map(str, labels)),
        "row_sums": [round(float(s), 7) for s in x[::50].sum(1)],
    }
    Path(__file__).with_name("mnist1d.json").write_text(json.dumps(recorded))
