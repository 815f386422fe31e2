"""Reading a file that may be hostile: links, sizes, types and depth are checked before data.

NIR files are HDF5, which can point to other files, claim any size, and ask for plug-ins.
"""

import os
from typing import Any

import numpy as np

from neurojax._memory import affordable
from neurojax.interchange._graph import DEEPEST, MOST_NODES, Graph, checked, refusal

MOST_BYTES = 2**31  # of all arrays of a file
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 32000: "lzf"}
_MOST_TEXT = 4096


def required(name: str) -> Any:
    """A module of the extra `neurojax[nir]`, or how to get it."""
    try:
        return __import__(name)
    except ModuleNotFoundError:
        cure = 'pip install "neurojax[nir]"'
        raise ModuleNotFoundError(f"reading and writing NIR needs {name}: {cure}") from None


def read(path: Any) -> Graph:
    """The graph of a file. `ValueError` names file, node and cure; `OSError`: there is none."""
    h5py = required("h5py")
    path = os.fspath(path)
    where = repr(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(2, "no such file", path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{where} is no HDF5 file that can be read: {_line(error)}") from None
    with file:
        try:
            return _Reader(where, h5py).file(file)
        except (OSError, RuntimeError, KeyError, UnicodeError) as error:
            raise ValueError(f"{where} is damaged: {_line(error)}: write it anew") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _Reader:
    """Counts what one file has asked for so far."""

    def __init__(self, where: str, h5py: Any):
        self.where, self.h5py = where, h5py
        self.n_bytes = self.n_nodes = 0
        self.seen: set[Any] = set()

    def file(self, file: Any) -> Graph:
        if "node" not in self._members(file, "file"):
            raise ValueError(f"{self.where} has no graph: a NIR file has a group 'node'")
        graph = self._node(self._member(file, "node", "file"), "node", 0)
        if not isinstance(graph, Graph):
            raise ValueError(f"{self.where} must hold a NIRGraph; got one {graph.kind}")
        return graph

    def _node(self, group: Any, name: str, depth: int) -> Any:
        if not isinstance(group, self.h5py.Group):
            raise refusal(self.where, name, "must be a group with a type; got an array")
        if depth > DEEPEST:
            raise refusal(self.where, name, f"graphs must lie at most {DEEPEST} deep; got more")
        self.n_nodes += 1
        if self.n_nodes > MOST_NODES:
            raise ValueError(f"{self.where}: at most {MOST_NODES} nodes are read; got more")
        members = self._members(group, name)
        if "type" not in members:
            raise refusal(self.where, name, "field 'type' is missing: add it")
        kind = self._text(self._member(group, "type", name), name, "type")
        metadata = self._metadata(group, name) if "metadata" in members else {}
        rest = [m for m in members if m not in ("type", "metadata")]
        if kind == "NIRGraph":
            return self._graph(group, name, rest, depth)
        fields = {m: self._value(self._member(group, m, name), name, m) for m in rest}
        return checked(self.where, name, kind, fields, metadata)

    def _graph(self, group: Any, name: str, members: list[str], depth: int) -> Graph:
        if unknown := sorted({*members} - {"nodes", "edges"}):
            cure = "a NIRGraph has nodes and edges: take it out of the file"
            raise refusal(self.where, name, f"field {unknown[0][:60]!r} is unknown; {cure}")
        if len(members) < 2:
            raise refusal(self.where, name, "must have nodes and edges, as a NIRGraph; add them")
        inside = self._member(group, "nodes", name)
        if not isinstance(inside, self.h5py.Group):
            raise refusal(self.where, name, "nodes must be a group; got an array")
        nodes = {
            n: self._node(self._member(inside, n, n), n, depth + 1)
            for n in self._members(inside, name)
        }
        return Graph(nodes, self._edges(self._member(group, "edges", name), name), self.where)

    def _members(self, group: Any, name: str) -> list[str]:
        if len(group) > MOST_NODES:
            raise refusal(self.where, name, f"holds more than {MOST_NODES} parts")
        return sorted(group.keys())

    def _member(self, group: Any, key: str, name: str) -> Any:
        """What lies there itself: no link that leads elsewhere, nothing that is there twice."""
        link = group.get(key, getlink=True)
        if not isinstance(link, self.h5py.HardLink):
            kind = "an external" if isinstance(link, self.h5py.ExternalLink) else "a soft"
            cure = "write the data itself"
            raise refusal(self.where, name, f"{key[:60]!r} is {kind} link, not followed: {cure}")
        item = group[key]
        where = self.h5py.h5o.get_info(item.id).addr
        if where in self.seen:
            raise refusal(
                self.where, name, f"{key[:60]!r} is there under two names: write it twice"
            )
        self.seen.add(where)
        return item

    def _sound(self, data: Any, name: str, field: str) -> None:
        """Refuse an array that lies elsewhere, is too large, or needs a plug-in to be read."""
        if not isinstance(data, self.h5py.Dataset):
            raise refusal(self.where, name, f"{field[:60]} must be an array; got a group")
        if data.is_virtual or data.external:
            cure = "write the data itself"
            raise refusal(self.where, name, f"{field[:60]} lies in another file: {cure}")
        if data.shape is None:
            raise refusal(self.where, name, f"{field[:60]} is empty: write numbers")
        properties = data.id.get_create_plist()
        for i in range(properties.get_nfilters()):
            if (code := properties.get_filter(i)[0]) not in _FILTERS:
                known = ", ".join(_FILTERS.values())
                said = f"{field[:60]} is packed by filter {code}; only {known} are read"
                raise refusal(self.where, name, said)
        size = 1
        for n in (*data.shape, data.dtype.itemsize):
            size *= int(n)  # of Python: does not overflow
        self.n_bytes += size
        if self.n_bytes > MOST_BYTES:
            said = f"{field[:60]} of shape {data.shape} asks for {size:.3g} bytes"
            cure = f"at most {MOST_BYTES / 2**30:g} GiB a file are read"
            raise refusal(self.where, name, f"{said}; {cure}")
        affordable(f"what {self.where} holds", self.n_bytes)

    def _value(self, data: Any, name: str, field: str) -> Any:
        self._sound(data, name, field)
        if data.dtype.kind in "OS":
            return self._text(data, name, field, again=False)
        if data.dtype.kind not in "fiu":
            cure = "write float32 or float64"
            raise refusal(self.where, name, f"{field[:60]} is of type {data.dtype}: {cure}")
        return np.asarray(data[()])

    def _text(self, data: Any, name: str, field: str, again: bool = True) -> str:
        if again:
            self._sound(data, name, field)
        if data.shape != () or not self.h5py.check_string_dtype(data.dtype):
            raise refusal(self.where, name, f"{field[:60]} must be text; got {data.dtype}")
        return _decoded(data[()])[:_MOST_TEXT]

    def _edges(self, data: Any, name: str) -> list[tuple[str, str]]:
        self._sound(data, name, "edges")
        if data.size == 0:
            return []
        if data.ndim != 2 or data.shape[1] != 2 or not self.h5py.check_string_dtype(data.dtype):
            got = f"{data.dtype} of shape {data.shape}"
            raise refusal(self.where, name, f"edges must be pairs of names; got {got}")
        if len(data) > 10 * MOST_NODES:
            raise refusal(self.where, name, f"at most {10 * MOST_NODES} edges are read")
        return [(_decoded(a), _decoded(b)) for a, b in data[()]]

    def _metadata(self, group: Any, name: str) -> dict[str, str]:
        """Its short texts; all else in it is nobody's business here."""
        found = {}
        inside = self._member(group, "metadata", name)
        for key in self._members(inside, name) if isinstance(inside, self.h5py.Group) else ():
            item = self._member(inside, key, name)
            text = isinstance(item, self.h5py.Dataset) and item.shape == ()
            if text and self.h5py.check_string_dtype(item.dtype):
                found[key] = self._text(item, name, key)
        return found


def _decoded(x: Any) -> str:
    return x.decode("utf8") if isinstance(x, bytes) else str(x)
