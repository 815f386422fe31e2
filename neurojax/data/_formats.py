"""Files of event cameras: N-MNIST's 40 bits, AEDAT 2.0, 3.1 and 4, Prophesee RAW, NumPy.

Each decoder gets the bytes of a file that is there, and returns columns t (us), x, y, p. No size
that a file states is believed before it is seen that the file has it.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from neurojax._memory import affordable

Shape = tuple[int, int, int]
_CHIPS = {
    "dvs128": (128, 128, 2), "davis128": (128, 128, 2), "davis208": (192, 208, 2),
    "davis240": (180, 240, 2), "davis346": (260, 346, 2), "davis640": (480, 640, 2),
}  # fmt: skip


class DamagedError(ValueError):
    """A file that is not what its format asks for; the message does not name the file."""


class Found(NamedTuple):
    """Columns t, x, y, p, [events] each, and the sensor they are of."""

    columns: tuple[Any, ...]
    shape: Shape


def read(path: Path, shape: Shape | None) -> Found:
    """The recording in a file, by what it begins with or by its name."""
    if path.suffix.lower() == ".npy":
        return _npy(path, shape)
    with open(path, "rb") as file:
        start = file.read(16)
    if start.startswith(b"#!AER-DAT4"):
        return _aedat4(path.read_bytes(), shape)
    if start.startswith(b"#!AER-DAT3.1"):
        return _aedat3(path.read_bytes(), shape)
    if start.startswith(b"#!AER-DAT2.0"):
        return _aedat2(path.read_bytes(), shape)
    if start.startswith(b"#!AER-DAT"):
        got = start[2:].split(b"\r")[0].decode("ascii", "replace")
        raise DamagedError(f"AEDAT must be 2.0, 3.1 or 4; got {got}: convert it with DV")
    if start.startswith(b"% "):
        return _prophesee(path.read_bytes(), shape)
    if path.suffix.lower() == ".bin":
        return Found(_forty_bits(path.read_bytes()), shape or (34, 34, 2))
    raise DamagedError(
        "it must be AEDAT, Prophesee RAW, 40 bits an event (.bin) or NumPy (.npy); it begins with"
        f" {start[:8]!r}"
    )


def _words(data: bytes, dtype: str, what: str) -> np.ndarray:
    """All of `data` as words, refused if the last is cut short."""
    size = np.dtype(dtype).itemsize
    if over := len(data) % size:
        raise DamagedError(f"it is cut short: {what} have {size} bytes, and {over} are left over")
    return np.frombuffer(data, dtype)


def _known(shape: Shape | None, told: Shape | None) -> Shape:
    if shape is None and told is None:
        raise DamagedError("it does not tell the sensor's size: pass shape=(height, width, 2)")
    return shape or told  # pyright: ignore[reportReturnType]


# --- N-MNIST ---


def _forty_bits(data: bytes) -> tuple[Any, ...]:
    """x, y, then one bit of sign and 23 of time, the most significant byte first.

    A row of 240 is no event: 2^13 us have passed that the 23 bits do not tell.
    Source: Orchard et al. (2015), Converting static image datasets, its reader Read_Ndataset.m.
    """
    raw = _words(data, "u1", "events").astype(np.int64)
    if over := len(raw) % 5:
        raise DamagedError(f"it is cut short: events have 5 bytes, and {over} are left over")
    x, y, a, b, c = raw.reshape(-1, 5).T
    passed = y == 240
    t = (((a & 127) << 16) | (b << 8) | c) + (np.cumsum(passed) << 13)
    return tuple(column[~passed] for column in (t, x, y, a >> 7))


# --- AEDAT ---


def _header(data: bytes) -> tuple[list[str], int]:
    """Lines of text that begin with #, and where what follows them begins."""
    lines, at = [], 0
    while data[at : at + 1] == b"#":
        end = data.find(b"\n", at)
        line = data[at : max(end, at)].decode("latin-1").strip()
        if end < 0 or not line.isprintable():  # an event whose first byte is that of #, or no end
            if lines and lines[0].startswith("#!AER-DAT2"):
                break
            raise DamagedError("it is cut short, within its header")
        lines.append(line)
        at = end + 1
        if line in ("#!END-HEADER", "#End Of ASCII Header"):
            break
    return lines, at


def _chip(lines: list[str], field: str) -> tuple[str, Shape | None]:
    """The sensor that a header names."""
    named = [line.partition(":")[2].strip() for line in lines if re.match(field, line)]
    name = named[0] if named else ""
    found = [chip for chip in _CHIPS if chip in name.lower()]
    return found[0] if found else "", _CHIPS[found[0]] if found else None


def _aedat2(data: bytes, shape: Shape | None) -> Found:
    """Pairs of address and time (us), 32 bits each, most significant byte first.

    Addresses count from the right and from below. The last bit of a DVS128's is 0 where it got
    brighter, that of a DAVIS 1.
    Source: iniVation, AEDAT 2.0 file format; jAER, extractors of DVS128 and DavisBaseCamera.
    """
    lines, at = _header(data)
    chip, told = _chip(lines, "# AEChip")
    if not chip:
        if shape is None:
            raise DamagedError(
                "its AEChip must be DVS128 or a DAVIS: pass shape=(height, width, 2)"
            )
        chip = "dvs128" if shape[0] <= 128 and shape[1] <= 128 else "davis"
    height, width, _ = shape = _known(shape, told)
    pairs = _words(data[at:], ">u4", "an address and its time").astype(np.int64)
    if len(pairs) % 2:
        raise DamagedError("it is cut short: events have 8 bytes, and 4 are left over")
    address, t = pairs.reshape(-1, 2).T
    if chip == "dvs128":
        kept = address & 0x8000 == 0  # the others are edges on a pin
        x, y, p = (address >> 1) & 127, (address >> 8) & 127, 1 - (address & 1)
    else:
        kept = (address >> 31 == 0) & (address & 0x400 == 0)  # frames and inertia; edges on a pin
        x, y, p = (address >> 12) & 1023, (address >> 22) & 511, (address >> 11) & 1
    return Found((t[kept], width - 1 - x[kept], height - 1 - y[kept], p[kept]), shape)


def _aedat3(data: bytes, shape: Shape | None) -> Found:
    """Packets of a header of 28 bytes and events of one kind, of which kind 1 is polarity.

    Source: iniVation, AEDAT 3.1 file format.
    """
    lines, at = _header(data)
    if lines[-1] != "#!END-HEADER":
        raise DamagedError("its header must end with #!END-HEADER")
    formats = [line for line in lines if line.startswith("#Format")]
    if formats and formats[0].partition(":")[2].strip() != "RAW":
        raise DamagedError(
            f"its format must be RAW; got {formats[0]!r}: save it so with cAER or DV"
        )
    shape = _known(shape, _chip(lines, "#Source")[1])
    words, times = [], []
    while at < len(data):
        if len(data) - at < 28:
            raise DamagedError(f"it is cut short: a packet's header has 28 bytes; {len(data) - at}")
        kind = int.from_bytes(data[at : at + 2], "little")
        size, _, overflow, capacity, number, _ = np.frombuffer(data, "<i4", 6, at + 4).tolist()
        at += 28
        if size < 1 or number < 0 or number > capacity or overflow < 0:
            raise DamagedError(f"a packet must have events; it says {number} of {size} bytes")
        if size * number > len(data) - at:
            said = f"a packet says {number} events of {size} bytes, and {len(data) - at} follow"
            raise DamagedError(f"it is cut short: {said}")
        if kind == 1:
            if size != 8:
                raise DamagedError(f"polarity events must have 8 bytes; got {size}")
            pairs = np.frombuffer(data, "<u4", 2 * number, at).reshape(-1, 2).astype(np.int64)
            pairs = pairs[pairs[:, 0] & 1 == 1]  # the others are said not to be valid
            words.append(pairs[:, 0])
            times.append(pairs[:, 1] + (overflow << 31))
        at += size * number
    word = np.concatenate([np.zeros(0, np.int64), *words])
    t = np.concatenate([np.zeros(0, np.int64), *times])
    return Found((t, (word >> 17) & 0x7FFF, (word >> 2) & 0x7FFF, (word >> 1) & 1), shape)


def _aedat4(data: bytes, shape: Shape | None) -> Found:
    """Packets of a stream and a size, and a FlatBuffer of events each, as a rule compressed.

    Source: iniVation, AEDAT 4.0 file format; Google, FlatBuffers internals.
    """
    at = 18 + (size := _int(data, 14, 4))
    if not 8 <= size <= len(data) - 18:
        raise DamagedError(f"its header says {size} bytes, and {max(len(data) - 18, 0)} follow")
    header = _Table(data[18:at])
    compression, end = header.number(0, 4, 0), header.number(1, 8, -1)
    unpack = _unpackers(compression)
    stream, told = _stream(header.text(2))
    end = len(data) if end < 0 else end
    if not at <= end <= len(data):
        raise DamagedError(
            f"it is cut short: its table is said to be at {end} of {len(data)} bytes"
        )
    packets, total = [np.zeros(0, _EVENT)], 0
    while at < end:
        if end - at < 8 or not 0 <= (size := _int(data, at + 4, 4)) <= end - at - 8:
            said = f"a packet says {_int(data, at + 4, 4)} bytes, and {max(end - at - 8, 0)} follow"
            raise DamagedError(f"it is cut short: {said}")
        if _int(data, at, 4) == stream:
            packets.append(_Table(unpack(data[at + 8 : at + 8 + size])[4:]).vector(0, _EVENT))
            affordable("its events", 5 * (total := total + packets[-1].nbytes))
        at += 8 + size
    found = np.concatenate(packets)
    columns = tuple(np.asarray(found[name]) for name in ("t", "x", "y", "on"))
    return Found(columns, _known(shape, told))


_EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "u1"), ("", "V3")])
_PACKET = 1 << 28  # bytes that a packet may become; a second of a camera takes a tenth of it


def _int(data: bytes, at: int, n: int) -> int:
    """A signed number of n bytes, refused where the data have none."""
    if not 0 <= at <= len(data) - n:
        raise DamagedError("it is cut short, or leads outside of itself")
    return int.from_bytes(data[at : at + n], "little", signed=True)


class _Table:
    """The root table of a FlatBuffer: where each field is, said by a table of offsets before it."""

    def __init__(self, data: bytes):
        self.data, self.at = data, _int(data, 0, 4)
        self.offsets = self.at - _int(data, self.at, 4)
        self.size = _int(data, self.offsets, 2)

    def place(self, i: int) -> int:
        """Of the i-th field; 0 where it is not given."""
        slot = 4 + 2 * i
        offset = _int(self.data, self.offsets + slot, 2) if slot + 2 <= self.size else 0
        return self.at + offset if offset else 0

    def number(self, i: int, n: int, default: int) -> int:
        return _int(self.data, place, n) if (place := self.place(i)) else default

    def vector(self, i: int, dtype: Any) -> np.ndarray:
        """An array, refused where there are not as many bytes as it says."""
        if not (place := self.place(i)):
            return np.zeros(0, dtype)
        start = place + _int(self.data, place, 4)
        n, room = _int(self.data, start, 4), len(self.data) - start - 4
        if not 0 <= n * np.dtype(dtype).itemsize <= room:
            raise DamagedError(f"it is cut short: a packet says {n} entries in {room} bytes")
        return np.frombuffer(self.data, dtype, n, start + 4)

    def text(self, i: int) -> str:
        return self.vector(i, "u1").tobytes().decode("utf-8", "replace")


def _unpackers(compression: int) -> Callable[[bytes], bytes]:
    """What a packet becomes, by the number that the header tells."""
    if compression == 0:
        return lambda packet: packet
    if compression not in (1, 2, 3, 4):
        raise DamagedError(f"its compression must be 0 to 4; got {compression}")
    try:
        import lz4.frame
        import zstandard
    except ModuleNotFoundError as error:
        cure = "pip install neurojax[events]"
        raise DamagedError(
            f"its packets are compressed, and there is no {error.name}: {cure}"
        ) from None

    def unpack(packet: bytes) -> bytes:
        try:
            if compression > 2:
                reader = zstandard.ZstdDecompressor().stream_reader(packet)
                found, whole = reader.read(_PACKET + 1), True
            else:
                reader = lz4.frame.LZ4FrameDecompressor()
                found = reader.decompress(packet, max_length=_PACKET + 1)
                whole = reader.eof or len(found) > _PACKET
        except (RuntimeError, EOFError, zstandard.ZstdError) as error:
            said = str(error).strip().split("\n")[0]
            raise DamagedError(f"a packet cannot be unpacked: {said}") from None
        if len(found) > _PACKET or not whole:
            raise DamagedError(
                f"a packet cannot be unpacked: it is cut short, or more than {_PACKET} bytes"
            )
        return found

    return unpack


def _stream(text: str) -> tuple[int, Shape | None]:
    """The one stream of events that the header's XML tells of, and its sensor."""
    try:
        if "<!" in text:  # entities have no place there
            raise ElementTree.ParseError("it declares entities")
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DamagedError(f"its header must tell of its streams in XML: {error}") from None
    streams = []
    for node in root.iter("node"):
        told = {a.get("key"): a.text or "" for a in node.findall("attr")}
        if told.get("typeIdentifier") == "EVTS" and (node.get("name") or "").isdecimal():
            inner = {a.get("key"): a.text or "" for a in node.iterfind("node[@name='info']/attr")}
            sizes = [inner.get(name, "") for name in ("sizeY", "sizeX")]
            known = all(size.isdecimal() and 0 < len(size) < 6 for size in sizes)
            shape = (int(sizes[0]), int(sizes[1]), 2) if known else None
            streams.append((int((node.get("name") or "")[:9]), shape))
    if len(streams) != 1:
        raise DamagedError(f"it must hold one stream of events; it holds {len(streams)}")
    return streams[0]


# --- Prophesee ---


def _prophesee(data: bytes, shape: Shape | None) -> Found:
    """EVT 2.0 or 3.0, as the lines tell that begin with %.

    What comes before the first word of time is passed over: a stream may begin anywhere.
    Source: Prophesee, EVT 2.0 and EVT 3.0 formats.
    """
    lines, at = [], 0
    while data[at : at + 1] == b"%":
        end = data.find(b"\n", at)
        if end < 0:
            raise DamagedError("it is cut short, within its header")
        lines.append(data[at + 1 : end].decode("latin-1").strip())
        at = end + 1
        if lines[-1] == "end":
            break
    text = "\n".join(lines).lower()
    size = re.search(r"(?m)^geometry (\d{1,5})x(\d{1,5})", text)
    told = (int(size[2]), int(size[1]), 2) if size else None
    if told is None and (w := re.search(r"width=(\d{1,5})", text)):
        h = re.search(r"height=(\d{1,5})", text)
        told = (int(h[1]), int(w[1]), 2) if h else None
    named = re.search(r"(?m)^format evt(\d+)|^evt (\d)\.(\d)", text)
    version = "" if named is None else named[1] or named[2] + named[3].replace("0", "")
    decode = {"2": _evt2, "3": _evt3}.get(version)
    if decode is None:
        cure = "convert it with metavision_file_to_hdf5 or metavision_raw_evt_encoder"
        raise DamagedError(f"its format must be EVT 2.0 or 3.0; got {version or 'none'}: {cure}")
    return Found(decode(data[at:]), _known(shape, told))


def _latest(here: np.ndarray) -> np.ndarray:
    """Where it was last so, up to each word; -1 before."""
    return np.maximum.accumulate(np.where(here, np.arange(len(here)), -1)) if len(here) else here


def _codes(kind: np.ndarray, known: tuple[int, ...], version: str) -> None:
    bad = ~np.isin(kind, known)
    if bad.any():
        got = f"{kind[bad][0]:#x} at word {np.flatnonzero(bad)[0]} ({bad.sum()} of {bad.size})"
        raise DamagedError(f"codes of {version} must be {', '.join(map(hex, known))}; got {got}")


def _evt2(data: bytes) -> tuple[Any, ...]:
    """Words of 32 bits: 4 of kind, 6 of time, 11 of x, 11 of y; kind 8 has 28 more bits of time."""
    word = _words(data, "<u4", "words").astype(np.int64)
    kind = word >> 28
    _codes(kind, (0, 1, 8, 10, 14, 15), "EVT 2.0")
    high = _latest(kind == 8)
    kept = (kind <= 1) & (high >= 0)
    one = word[kept]
    t = ((word[high[kept]] & 0xFFFFFFF) << 6) | ((one >> 22) & 63)
    return t, (one >> 11) & 2047, one & 2047, kind[kept]


def _evt3(data: bytes) -> tuple[Any, ...]:
    """Words of 16 bits, 4 of kind: 0 row; 2 an event; 3 the first of many, 4 and 5 twelve and
    eight of these by their bits; 6 and 8 low and high 12 bits of time. What is told holds on."""
    word = _words(data, "<u2", "words").astype(np.int64)
    kind = word >> 12
    _codes(kind, (0, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15), "EVT 3.0")
    row, base = _latest(kind == 0), _latest(kind == 3)
    t, timed = _time24(word, kind)
    ready = timed & (row >= 0)
    step = np.select([kind == 4, kind == 5], [12, 8], 0)
    before = np.cumsum(step) - step  # how far earlier words have gone
    single = np.flatnonzero((kind == 2) & ready)
    many = np.flatnonzero((step > 0) & ready & (base >= 0))
    bit = np.arange(12)
    which, offset = np.nonzero((word[many, None] >> bit) & (bit < step[many, None]))
    at = many[which]
    first = base[at]
    index = np.concatenate([single, at])
    x = np.concatenate(
        [word[single] & 2047, (word[first] & 2047) + before[at] - before[first] + offset]
    )
    p = np.concatenate([word[single] >> 11 & 1, word[first] >> 11 & 1])
    order = np.argsort(index, kind="stable")
    index = index[order]
    return t[index], x[order], word[row[index]] & 2047, p[order]


def _time24(word: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time (us) at each word, and whether it is told there; 24 bits that begin anew in between."""
    high, low = _latest(kind == 8), _latest(kind == 6)
    bits = word & 4095
    said = bits[kind == 8]
    fell = np.concatenate([[False], np.diff(said) < -2048]) if len(said) else np.zeros(0, bool)
    loops = np.zeros(len(word), np.int64)
    loops[kind == 8] = np.cumsum(fell)
    told = high >= 0
    base = np.where(told, (loops[high] << 24) | (bits[high] << 12), 0)
    return base + np.where(low > high, bits[low], 0), told


# --- NumPy ---


def mapped(path: Path) -> np.ndarray:
    """The array of a .npy file, on disk, refused where it says more than the file has."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - what a damaged header makes its parser raise
        said = str(error).strip().split("\n")[0][:200]
        raise DamagedError(f"it must be a whole .npy file; got {said}") from None


def _npy(path: Path, shape: Shape | None) -> Found:
    """A structured array with fields t (us), x, y and p."""
    array = mapped(path)
    if not {"t", "x", "y", "p"} <= set(array.dtype.names or ()) or array.ndim != 1:
        raise DamagedError(f"it must be [events] with fields t, x, y, p; got {array.dtype}")
    columns = tuple(np.asarray(array[name]) for name in ("t", "x", "y", "p"))
    return Found(columns, _known(shape, None))
