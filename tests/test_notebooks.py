"""Each notebook runs from top to bottom, and its .ipynb says what its script says.

After a change of a script: `jupytext --sync notebooks/*.py`.
"""

import os
from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
LEARNS = "01_quickstart"  # computes as long as it compiles
each_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_there_are_notebooks():
    assert SCRIPTS
    assert {path.stem for path in SCRIPTS} == {path.stem for path in FOLDER.glob("*.ipynb")}


@each_notebook
def test_notebook_is_its_script(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert cells(notebook) == cells(jupytext.read(script))


@each_notebook
def test_notebook_is_stored_without_bulky_output(script):
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert len(nbformat.v4.writes(nbformat.v4.new_notebook(cells=notebook.cells))) < 100_000
    assert sum(len(str(output)) for output in outputs) < 10_000


@pytest.mark.slow
@each_notebook
def test_notebook_runs(script, tmp_path):
    notebook = jupytext.read(script)
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": FOLDER}}
    )
    # One device, as a reader has, and no history or settings of whoever runs the tests.
    env = os.environ | {"IPYTHONDIR": str(tmp_path)}
    env["XLA_FLAGS"] = env["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    if script.stem == LEARNS:
        env["XLA_FLAGS"] += " --xla_backend_optimization_level=1"
    else:  # more is compiled than computed
        env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "True"
    client.execute(env=env)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("image/png" in output.get("data", ()) for cell in code for output in cell.outputs)
