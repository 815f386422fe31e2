"""A file is looked at before it is read; what is wrong with it is one line that says where."""

import h5py
import nir
import numpy as np
import pytest

import neurojax as nj


def write(path, **changes):
    """A sound file of one neuron, but for what is changed: a function of the open file each."""
    one = np.ones(2)
    graph = nir.NIRGraph.from_list(
        nir.Affine(weight=np.ones((2, 3)), bias=one),
        nir.LIF(tau=0.01 * one, r=one, v_leak=0 * one, v_threshold=one, v_reset=0 * one),
    )
    nir.write(str(path), graph)
    with h5py.File(path, "r+") as file:
        for change in changes.values():
            change(file["node"])
    return path


def replaced(where, value, **options):
    def change(node):
        if where in node:
            del node[where]
        node.create_dataset(where, data=value, **options)

    return change


def gone(where):
    return lambda node: node.__delitem__(where)


def external(node):
    del node["nodes/lif/tau"]
    node["nodes/lif/tau"] = h5py.ExternalLink("/etc/other.h5", "/x")


def soft(node):
    del node["nodes/lif/tau"]
    node["nodes/lif/tau"] = h5py.SoftLink("/node/nodes/lif/r")


def circle(node):
    node["nodes/again"] = node.file["node"]


def twice(node):
    del node["nodes/lif/tau"]
    node["nodes/lif/tau"] = node["nodes/lif/r"]


def elsewhere(node):
    del node["nodes/lif/tau"]
    node["nodes/lif"].create_dataset("tau", (2,), "f8", external=[("/etc/hostname", 0, 16)])


def virtual(node):
    del node["nodes/lif/tau"]
    layout = h5py.VirtualLayout(shape=(2,), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(2,))
    node["nodes/lif"].create_virtual_dataset("tau", layout)


def huge(node):
    del node["nodes/affine/weight"]
    node["nodes/affine"].create_dataset(
        "weight", (2**33, 2**20), "f8", chunks=(64, 64), compression="gzip"
    )


def deep(node):
    for _ in range(40):
        node["nodes/inner/type"] = "NIRGraph"
        node["nodes/inner/edges"] = np.zeros(0)
        node = node["nodes/inner"]
        node.create_group("nodes")
    node["type"][()]


def plugin(node):
    del node["nodes/lif/tau"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((2,))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    space, kind = h5py.h5s.create_simple((2,)), h5py.h5t.NATIVE_DOUBLE
    h5py.h5d.create(node["nodes/lif"].id, b"tau", kind, space, properties)


def renamed(node):
    node["nodes/lif/tau_m"] = node["nodes/lif/tau"][()]


HOSTILE = {
    "an external link": (external, r"node 'lif': 'tau' is an external link, not followed: write"),
    "a soft link": (soft, "node 'lif': 'tau' is a soft link, not followed: write the data itself"),
    "a group within itself": (circle, "'again' is there under two names: write it twice"),
    "one array for two": (twice, "is there under two names: write it twice"),
    "data of another file": (elsewhere, "node 'lif': tau lies in another file: write the data"),
    "a view of other files": (virtual, "node 'lif': tau lies in another file: write the data"),
    "a size that lies": (huge, r"node 'affine': weight of shape .* asks for 7.21e\+16 bytes; at m"),
    "graphs without end": (deep, "graphs must lie at most 16 deep; got more"),
    "a filter to be loaded": (plugin, "node 'lif': tau is packed by filter 32015; only gzip"),
    "an unknown node": (replaced("nodes/lif/type", "ALIF"), "'lif': type must be one of .*'ALIF'"),
    "an unknown field": (renamed, "'lif': field 'tau_m' is unknown; LIF has tau, .*: take it out"),
    "a missing field": (gone("nodes/lif/tau"), "'lif': field 'tau' is missing, which LIF needs"),
    "no type": (gone("nodes/lif/type"), "node 'lif': field 'type' is missing: add it"),
    "NaN": (replaced("nodes/lif/r", np.array([1, np.nan])), "'lif': r must be finite; got nan"),
    "a time that runs back": (
        replaced("nodes/lif/tau", np.array([1.0, -1.0])),
        r"'lif': tau must be > 0; got -1.0 \(1 of 2\): a time constant is > 0",
    ),
    "bytes for numbers": (
        replaced("nodes/lif/tau", np.zeros(2, "V2")), "'lif': tau is of type .V2: write float32 or",
    ),
    "text for numbers": (replaced("nodes/lif/tau", "much"), "'lif': tau must be numbers; got"),
    "complex numbers": (replaced("nodes/lif/tau", np.ones(2, complex)), "'lif': tau is of"),
    "parameters of two shapes": (
        replaced("nodes/lif/tau", np.ones(3)), "'lif': parameters must have one shape; got",
    ),
    "a layer that does not fit": (
        replaced("nodes/affine/weight", np.ones((2, 4))), "must hear|weight",
    ),
    "an edge to nowhere": (
        replaced("edges", np.array([["input", "affin"]], object), dtype=h5py.string_dtype()),
        "an edge ends at 'affin', which is no node; there are affine, input",
    ),
    "an edge twice": (
        replaced("edges", np.array([["input", "affine"]] * 2, object), dtype=h5py.string_dtype()),
        "edge .'input', 'affine'. must be there once; got it twice",
    ),
    "no edges": (gone("edges"), "must have nodes and edges"),
    "a node that hears nothing": (
        replaced("edges", np.array([["input", "affine"], ["lif", "output"]], object),
                 dtype=h5py.string_dtype()), "node 'lif': hears no Input|has no input",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, change):
    damage, told = HOSTILE[change]
    path = write(tmp_path / "net.nir", damage=damage)
    with pytest.raises(ValueError, match=told) as error:
        nj.from_nir(path, dt=1.0)
    assert "net.nir'" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_sound_file_is_read(tmp_path):
    assert nj.from_nir(write(tmp_path / "net.nir"), dt=1.0).net.layers["lif"].n == 2


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + 100 * b"\0"])
def test_what_is_no_file_of_nir_is_said_so(tmp_path, content):
    path = tmp_path / "net.nir"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="net.nir' is no HDF5 file that can be read"):
        nj.from_nir(path, dt=1.0)
    with pytest.raises(FileNotFoundError, match="other.nir"):
        nj.from_nir(tmp_path / "other.nir", dt=1.0)


def test_a_truncated_file_is_said_so(tmp_path):
    path = write(tmp_path / "net.nir")
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(ValueError, match="net.nir' is"):
        nj.from_nir(path, dt=1.0)


def lif(n=2, **fields):
    one = np.ones(n)
    given = dict(tau=0.01 * one, r=one, v_leak=0 * one, v_threshold=one) | fields
    return nir.LIF(**given)


BAD = {
    "a delay between steps": (
        [nir.Delay(delay=np.array([0.001, 0.0015])), lif()], {},
        "'delay': delay must be a whole number of steps of dt, 1 ms; got 1.5 ms: pass a dt that",
    ),
    "Euler beyond its step": (
        [lif(tau=np.array([0.0005, 0.01]))], {"leak": "euler"},
        r"'lif': tau must be >= dt, 1 ms, with leak='euler'.*got 0.5 ms \(1 of 2\): pass a",
    ),
    "a threshold below the reset": (
        [lif(v_reset=2 * np.ones(2))], {}, "'lif': v_th must be above v_reset; got 1 and 2 mV",
    ),
    "a resistance of another sign": ([lif(r=-np.ones(2))], {}, "'lif': r must be > 0; .* its sign"),
    "another method": ([lif()], {"leak": "rk4"}, "leak must be 'exact' or 'euler'; got 'rk4'"),
    "another unit": ([lif()], {"time_unit": "us"}, "time_unit must be 's' or 'ms'; got 'us'"),
    "another reset": ([lif()], {"reset": "zero"}, "reset must be 'hard' or 'subtract'; got 'zero'"),
    "no step": ([lif()], {"dt": 0.0}, "dt must be finite and > 0 ms; got 0.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_a_graph_cannot_mean_is_refused(case):
    nodes, reading, told = BAD[case]
    with pytest.raises(ValueError, match=told):
        nj.from_nir(nir.NIRGraph.from_list(*nodes), **{"dt": 1.0, **reading})


def test_there_is_no_silent_step():
    with pytest.raises(TypeError, match="dt"):
        nj.from_nir(nir.NIRGraph.from_list(lif()))  # pyright: ignore[reportCallIssue]


def test_a_loop_without_state_is_refused():
    nodes = {"x": nir.Input(np.array([2])), "a": nir.Linear(np.eye(2)), "b": nir.Linear(np.eye(2))}
    edges = [("x", "a"), ("a", "b"), ("b", "a")]
    with pytest.raises(
        ValueError, match="lies on a loop of nodes without state: put a neuron on it"
    ):
        nj.from_nir(nir.NIRGraph(nodes, edges, type_check=False), dt=1.0)


def test_paths_without_end_are_refused_soon():
    nodes, edges, at = {"x": nir.Input(np.array([1]))}, [], "x"
    for i in range(40):  # two ways from each to the next: 2^40 in all
        for side in "ab":
            nodes[f"{side}{i}"] = nir.Scale(scale=np.ones(1))
        nodes[f"c{i}"] = nir.Scale(scale=np.ones(1))
        edges += [(at, f"a{i}"), (at, f"b{i}"), (f"a{i}", f"c{i}"), (f"b{i}", f"c{i}")]
        at = f"c{i}"
    nodes["lif"], edges = lif(1), [*edges, (at, "lif")]
    with pytest.raises(ValueError, match="at most 10000 paths from layer to layer are read"):
        nj.from_nir(nir.NIRGraph(nodes, edges, type_check=False), dt=1.0)


def test_check_nir_prints_a_row_a_node_and_the_reason(tmp_path, capsys):
    path = write(tmp_path / "net.nir")
    assert nj.check_nir(path)
    rows = capsys.readouterr().out.splitlines()
    assert [r.split()[:2] for r in rows] == [
        ["affine", "Affine"], ["input", "Input"], ["lif", "LIF"], ["output", "Output"]
    ]  # fmt: skip
    assert not nj.check_nir(path, dt=20.0, leak="euler")
    assert "refused: tau must be >= dt, 20 ms" in capsys.readouterr().out
    assert not nj.check_nir(write(tmp_path / "bad.nir", a=external))
    assert "external link" in capsys.readouterr().out
