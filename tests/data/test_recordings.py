"""Recordings of events: files made here word by word, damaged ones, and what is made of them."""

import itertools
import struct

import jax
import numpy as np
import pytest

import neurojax as nj
from neurojax.data import _formats, bin_events, events, rasters, read_events, time_surface
from neurojax.data.recordings import opened

lz4 = pytest.importorskip("lz4.frame")
zstandard = pytest.importorskip("zstandard")
SHAPE, DVS = (34, 34, 2), (128, 128, 2)


def some(n=60, shape=SHAPE, last=5000, seed=0):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, last, n))
    x, y, p = (rng.integers(0, size, n) for size in (shape[1], shape[0], shape[2]))
    return events(t, x, y, p, shape=shape)


# --- writers, each from the description of its format ---


def forty_bits(e):
    word = (e.x.astype(object) << 32) | (e.y << 24) | (e.p << 23) | e.t
    return b"".join(int(w).to_bytes(5, "big") for w in word)


def aedat2(e, chip="eu.seebetter.ini.chips.davis.DAVIS240C"):
    lines = f"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# AEChip: {chip}\r\n".encode()
    x, y = e.shape[1] - 1 - e.x, e.shape[0] - 1 - e.y  # both count from the other end
    if "DVS128" in chip:
        address = (y << 8) | (x << 1) | (1 - e.p)  # 0 is brighter
    else:
        address = (y << 22) | (x << 12) | (e.p << 11)
    pairs = np.stack([address, e.t], 1).astype(">u4")
    extra = [[0x8000, 0]] if "DVS128" in chip else [[1 << 31, 0], [1 << 10, 0]]
    return lines + np.array(extra, ">u4").tobytes() + pairs.tobytes()


def packet3(kind, words, overflow=0, number=None):
    n = len(words) if number is None else number
    return struct.pack("<hhiiiiii", kind, 0, 8, 4, overflow, max(n, 0), n, n) + b"".join(
        struct.pack("<II", *word) for word in words
    )


def aedat3(e, overflow=0):
    head = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: DVS128\r\n#!END-HEADER\r\n"
    word = (e.x.astype(np.int64) << 17) | (e.y << 2) | (e.p << 1) | 1
    pairs = list(zip(word.tolist(), e.t.tolist(), strict=True))
    pairs.insert(3, (word[0] & ~1, 0))  # one that says of itself that it is not valid
    return (
        head
        + packet3(0, [(1, 2)])
        + packet3(1, pairs[:20], overflow)
        + packet3(1, pairs[20:], overflow)
    )


def table(fields):
    """A flatbuffer of one table; `fields` are bytes in place, or a vector or string behind it."""
    vtable = struct.pack("<HH", 4 + 2 * len(fields), 0)
    at, body = 4, b""
    slots, later = [], []
    for inline, _ in fields:
        pad = -at % max(len(inline), 1) if inline else 0
        pad = -at % 4 if not inline else pad
        body += b"\0" * pad
        at += pad
        slots.append(at)
        later.append(at)
        body += inline or b"\0\0\0\0"
        at += len(inline or b"\0\0\0\0")
    vtable = struct.pack("<HH", 4 + 2 * len(fields), at) + b"".join(
        struct.pack("<H", s) for s in slots
    )
    start = 8 + len(vtable) + (-(8 + len(vtable)) % 8) + 4  # behind root and identifier
    start += -start % 8
    content = bytearray(struct.pack("<i", start - 8) + body)
    for (inline, behind), slot in zip(fields, slots, strict=True):
        if not inline:
            pad = -(start + len(content) + 4) % 8
            content += b"\0" * pad
            content[slot : slot + 4] = struct.pack("<I", len(content) - slot)
            content += behind
    return start, vtable, bytes(content)


def flatbuffer(identifier, fields):
    start, vtable, content = table(fields)
    filler = b"\0" * (start - 8 - len(vtable))
    return struct.pack("<I", start) + identifier + vtable + filler + content


def aedat4(e, end=-1, damage=lambda packet: packet, pack=(0, lambda body: body), info=None):
    info = (
        info
        or (
            '<dv version="2.0"><node name="outInfo" path="/"><node name="0" path="/0/">'
            '<attr key="compression" type="string">NONE</attr>'
            '<attr key="originalModuleName" type="string">cam</attr>'
            '<attr key="originalOutputName" type="string">events</attr>'
            '<attr key="typeDescription" type="string">Array of events.</attr>'
            '<attr key="typeIdentifier" type="string">EVTS</attr>'
            '<node name="info" path="/0/info/">'
            f'<attr key="sizeX" type="int">{e.shape[1]}</attr>'
            f'<attr key="sizeY" type="int">{e.shape[0]}</attr>'
            '<attr key="source" type="string">cam</attr></node></node></node></dv>'
        ).encode()
    )
    text = struct.pack("<I", len(info)) + info + b"\0"
    header = flatbuffer(
        b"IOHE", [(struct.pack("<i", pack[0]), b""), (struct.pack("<q", end), b""), (b"", text)]
    )
    record = np.zeros(len(e.t), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "?"), ("", "V3")])
    record["t"], record["x"], record["y"], record["on"] = e.t, e.x, e.y, e.p
    body = flatbuffer(b"EVTS", [(b"", struct.pack("<I", len(e.t)) + record.tobytes())])
    body = pack[1](struct.pack("<I", len(body)) + body)
    packet = struct.pack("<ii", 0, len(body)) + body
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header + damage(packet)


def evt2(e):
    words, high = [], None
    for t, x, y, p in zip(e.t, e.x, e.y, e.p, strict=True):
        if t >> 6 != high:
            high = t >> 6
            words.append((8 << 28) | high)
        words.append((p << 28) | ((t & 63) << 22) | (x << 11) | y)
    head = b"% date 2024-01-01\n% evt 2.0\n% geometry 640x480\n% end\n"
    return head + np.array([(1 << 28) | 5, (10 << 28), *words], "<u4").tobytes()


def evt3(e, start=0):
    """Each event alone, by all that it takes, but in vectors where a row has several at once."""
    words, state = [(2 << 12) | 7], {}

    def tell(code, value):
        if state.get(code) != value:
            state[code] = value
            words.append((code << 12) | value)
            return True
        return False

    for (t, y, p), group in itertools.groupby(
        zip(e.t.tolist(), e.y.tolist(), e.p.tolist(), e.x.tolist(), strict=True),
        key=lambda q: q[:3],
    ):
        t += start
        if tell(8, t >> 12 & 4095):
            state.pop(6, None)
        tell(6, t & 4095)
        tell(0, y)
        xs = [q[3] for q in group]
        if len(xs) == 1:
            words.append((2 << 12) | (p << 11) | xs[0])
            continue
        words.append((3 << 12) | (p << 11) | xs[0])
        reach = max(xs) - xs[0]
        for first, size, code in ((0, 12, 4), (12, 8, 5), (20, 12, 4)):
            if reach >= first:
                bits = sum(
                    1 << (x - xs[0] - first) for x in xs if first <= x - xs[0] < first + size
                )
                words.append((code << 12) | bits)
    head = b"% format EVT3;height=480;width=640\n% end\n"
    return head + np.array(words, "<u2").tobytes()


def npy(e):
    record = np.zeros(len(e.t), [("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "u1")])
    for name in record.dtype.names:
        record[name] = getattr(e, name)
    import io

    file = io.BytesIO()
    np.save(file, record)
    return file.getvalue()


LZ4, ZSTD = (1, lz4.compress), (4, zstandard.compress)
GEN = (480, 640, 2)
FORMATS = {
    "nmnist": ("a.bin", lambda: some(last=2**23), forty_bits, None),
    "aedat2 davis": ("a.aedat", lambda: some(shape=(180, 240, 2)), aedat2, None),
    "aedat2 dvs": ("a.aedat", lambda: some(shape=DVS), lambda e: aedat2(e, "x.DVS128"), None),
    "aedat3": ("a.aedat", lambda: some(shape=(128, 128, 2)), aedat3, None),
    "aedat4": ("a.aedat4", lambda: some(shape=(260, 346, 2)), aedat4, None),
    "aedat4 lz4": ("a.aedat4", lambda: some(shape=DVS), lambda e: aedat4(e, pack=LZ4), None),
    "aedat4 zstd": ("a.aedat4", lambda: some(shape=DVS), lambda e: aedat4(e, pack=ZSTD), None),
    "evt2": ("a.raw", lambda: some(shape=GEN), evt2, None),
    "evt3": ("a.raw", lambda: some(shape=GEN), evt3, None),
    "npy": ("a.npy", some, npy, SHAPE),
}  # fmt: skip


def same(found, e, start=0):
    for name in ("t", "x", "y", "p"):
        np.testing.assert_array_equal(
            getattr(found, name), getattr(e, name) + start * (name == "t")
        )
    assert found.shape == e.shape


def read_or_refused(path, shape):
    """The events, or None where the file is refused in one line that names it."""
    try:
        return read_events(path, shape=shape)
    except ValueError as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return None


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_read_as_it_was_written(tmp_path, name):
    file, make, write, shape = FORMATS[name]
    (path := tmp_path / file).write_bytes(write(e := make()))
    same(read_events(path, shape=shape), e)


@pytest.mark.parametrize("name", FORMATS)
def test_wherever_a_file_is_cut_it_is_whole_events_or_refused(tmp_path, name):
    """In one line that names the file; what is left is what came first."""
    file, make, write, shape = FORMATS[name]
    whole, path, e = write(make()), tmp_path / file, make()
    for n in [*range(0, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:n])
        if (found := read_or_refused(path, shape)) is None:
            continue
        k = len(found.t)
        same(found, e._replace(**{a: getattr(e, a)[:k] for a in "txyp"}))


@pytest.mark.parametrize("name", FORMATS)
def test_noise_in_a_file_is_events_of_the_sensor_or_refused(tmp_path, name):
    file, make, write, shape = FORMATS[name]
    whole, path = write(make()), tmp_path / file
    rng = np.random.default_rng(1)
    for _ in range(25):
        noisy = bytearray(whole)
        for i in rng.integers(0, len(whole), 4):
            noisy[i] = rng.integers(0, 256)
        path.write_bytes(noisy)
        if (found := read_or_refused(path, shape)) is None:
            continue
        height, width, signs = found.shape
        assert (np.diff(found.t) >= 0).all()
        assert ((found.units >= 0) & (found.units < height * width * signs)).all()


def test_rows_of_many_are_told_as_vectors(tmp_path):
    """All of twelve, eight and twelve places, and time that begins anew after 2^24 us."""
    t = [10] * 5 + [4100] * 3 + [9000]
    x = [600, 603, 611, 613, 625, 4, 5, 11, 639]
    e = events(t, x, [3] * 5 + [479] * 3 + [0], [1] * 5 + [0] * 3 + [1], shape=GEN)
    path = tmp_path / "a.raw"
    path.write_bytes(evt3(e))
    same(read_events(path), e)
    start = 2**24 - 5000  # the last comes after the turn
    path.write_bytes(evt3(e, start))
    same(read_events(path), e, start)


def test_time_goes_on_where_a_format_counts_what_its_bits_do_not_hold(tmp_path):
    passed = bytes([0, 240, 0, 0, 0])
    e = events([5, 2**13 + 5], [1, 2], [3, 4], [0, 1], shape=SHAPE)
    parts = [
        forty_bits(events([5], [a], [b], [c], shape=SHAPE)) for a, b, c in ((1, 3, 0), (2, 4, 1))
    ]
    (path := tmp_path / "a.bin").write_bytes(parts[0] + passed + parts[1])
    same(read_events(path), e)
    e = some(shape=(128, 128, 2))
    (path := tmp_path / "a.aedat").write_bytes(aedat3(e, overflow=2))
    same(read_events(path), e, 2 << 31)


E, BOMB = some(4, DVS), bytes(2**16 + 5)
HEAD3 = b"#!AER-DAT3.1\r\n#Source 0: DVS128\r\n#!END-HEADER\r\n"
BAD = {
    "nothing": ("a.bin2", b"", "it must be AEDAT, Prophesee RAW"),
    "another AEDAT": ("a.aedat", b"#!AER-DAT1.0\r\n", "AEDAT must be 2.0, 3.1 or 4; got AER-DAT1"),
    "half an event": ("a.bin", bytes(7), "it is cut short: events have 5 bytes, and 2 are left"),
    "a row of 100": ("a.bin", bytes([1, 100, 0, 0, 0]), r"y must be in \[0, 34\); got 100"),
    "times back": ("a.bin", bytes([1, 2, 0, 0, 9, 1, 2, 0, 0, 3]),
                   "times must not run back; event 1 is at 3 us, after 9 .*: pass sort=True"),
    "no chip": ("a.aedat", b"#!AER-DAT2.0\r\n# AEChip: x.Retina\r\n" + bytes(8),
                "its AEChip must be DVS128 or a DAVIS: pass shape="),
    "no end": ("a.aedat", b"#!AER-DAT3.1\r\n#Source 0: DVS128\r\na\n", "must end with #!END"),
    "a billion events": ("a.aedat", HEAD3 + packet3(1, [(1, 2)], number=2**30),
                         "a packet says 1073741824 events of 8 bytes, and 8 follow"),
    "fewer than none": ("a.aedat", HEAD3 + packet3(1, [], number=-1), "a packet must have events"),
    "a huge packet": ("a.aedat4", aedat4(E, damage=lambda p: p[:4] + b"\xff\xff\xff\x7f" + p[8:]),
                      "it is cut short: a packet says 2147483647 bytes"),
    "a bomb of LZ4": ("a.aedat4", aedat4(E, pack=(2, lambda _: lz4.compress(BOMB))),
                      "a packet cannot be unpacked: .* more than 65536 bytes"),
    "a bomb of zstd": ("a.aedat4", aedat4(E, pack=(3, lambda _: zstandard.compress(BOMB))),
                       "a packet cannot be unpacked: .* more than 65536 bytes"),
    "another packing": ("a.aedat4", aedat4(E, pack=(9, bytes)), "must be 0 to 4; got 9"),
    "entities": ("a.aedat4", aedat4(E, info=b"<!DOCTYPE a><a/>"), "in XML: it declares entities"),
    "no stream": ("a.aedat4", aedat4(E, info=b"<a/>"), "one stream of events; it holds 0"),
    "a table outside": ("a.aedat4", aedat4(E, end=10**9), "its table is said to be at 1000000000"),
    "another EVT": ("a.raw", b"% evt 2.1\n% geometry 4x4\n% end\n",
                    "its format must be EVT 2.0 or 3.0; got 21: convert it"),
    "a code of EVT 2": ("a.raw", b"% evt 2.0\n% geometry 4x4\n% end\n" + bytes([0, 0, 0, 0x50]),
                        "codes of EVT 2.0 must be 0x0, .*; got 0x5 at word 0"),
    "a code of EVT 3": ("a.raw", b"% evt 3.0\n% geometry 4x4\n% end\n" + bytes([0, 0x90]),
                        "codes of EVT 3.0 .*; got 0x9 at word 0"),
    "no size": ("a.raw", b"% evt 3.0\n% end\n", "it does not tell the sensor's size: pass shape="),
    "no fields": ("a.npy", npy(E)[:20], "it must be a whole .npy file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_refused_by_what_is_wrong(tmp_path, monkeypatch, name):
    monkeypatch.setattr(_formats, "_PACKET", 2**16)
    file, content, said = BAD[name]
    (path := tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        read_events(path)
    assert str(error.value).startswith(f"{path}: ")


def test_an_array_that_says_more_than_its_file_has_is_refused(tmp_path):
    content = npy(E).replace(b"(4,)", b"(4000000000000,)").replace(b" " * 13, b"", 1)
    (path := tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"must be a whole \.npy file"):
        read_events(path, shape=(128, 128, 2))
    with pytest.raises(FileNotFoundError):
        read_events(tmp_path / "none.npy")


def test_times_that_run_back_are_put_in_order_where_that_is_asked_for():
    e = events([9, 3, 3], [0, 1, 2], shape=(1, 3, 1), sort=True)
    assert e.t.tolist() == [3, 3, 9]
    assert e.x.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(t=[0.5], x=[0]), r"t must be whole numbers; got float64: pass them in us"),
        (dict(t=[1, 2], x=[0]), r"x and t must be equally many; got \[1\] and \[2\]"),
        (dict(t=[1], x=[3]), r"x must be in \[0, 3\); got 3 \(1 of 1\)"),
        (dict(t=[1], x=[0], p=[-1]), r"p must be in \[0, 1\); got -1"),
        (dict(t=[-1], x=[0]), r"t must be in \[0, .* us; got -1"),
        (dict(t=[1], x=[0], shape=(2, 3)), r"shape must be \(height, width, signs\)"),
    ],
)
def test_arrays_that_are_no_recording_are_refused(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        events(**{"shape": (1, 3, 1), **arguments})


# --- what is made of them ---


def test_every_event_is_counted_in_its_own_step():
    """Against a loop, by whole numbers: times on a boundary belong to the step that begins."""
    e = some(300, last=4000)
    found = bin_events(e, 0.5)
    counts = np.zeros((8, *SHAPE), int)
    for t, x, y, p in zip(e.t, e.x, e.y, e.p, strict=True):
        counts[t // 500, y, x, p] += 1
    np.testing.assert_array_equal(found, counts.reshape(8, -1))
    assert found.sum() == 300
    np.testing.assert_array_equal(bin_events(e, 0.5, 3), found[:3])
    np.testing.assert_array_equal(bin_events(e, 0.5, 11)[8:], 0)
    np.testing.assert_array_equal(bin_events(e, 0.5, binary=True), found > 0)
    small = bin_events(e.pooled(17), 0.5).reshape(8, 2, 2, 2)
    np.testing.assert_array_equal(small, counts.reshape(8, 2, 17, 2, 17, 2).sum((2, 4)))


def test_recordings_of_several_lengths_are_one_array(tmp_path):
    parts = [some(30, last=n, seed=n) for n in (900, 5000, 2100)]
    found = rasters(parts, 1.0)
    for x, n, e in zip(found.x, found.lengths, parts, strict=True):
        np.testing.assert_array_equal(x[:n], bin_events(e, 1.0))
        assert not x[n:].any()
    there = rasters(parts, 1.0, folder=tmp_path / "kept")
    assert isinstance(there.x, np.memmap)
    np.testing.assert_array_equal(there.x, found.x)
    np.testing.assert_array_equal(opened(tmp_path / "kept").lengths, found.lengths)
    (tmp_path / "kept" / "x.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"x\.npy: it must be a whole \.npy file"):
        opened(tmp_path / "kept")


def test_a_surface_is_how_long_ago_each_pixel_spoke():
    e = some(200, shape=(4, 4, 2))
    found = time_surface(e, [100, 3000], tau=2.0)
    for k, now in enumerate((100, 3000)):
        for unit in range(32):
            seen = e.t[(e.units == unit) & (e.t <= now)]
            want = np.exp((seen.max() - now) / 2000) if seen.size else 0.0
            np.testing.assert_allclose(found[k].ravel()[unit], want, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bin_events(E, 0.0), "dt must be finite and > 0 ms"),
        (lambda: bin_events(E, 0.0001), "dt must be whole microseconds"),
        (lambda: bin_events(E, 1e30), r"dt must be whole microseconds, .*; got 1e\+30"),
        (lambda: bin_events(E, 1e308), r"dt must be finite and > 0 ms; got 1e\+308"),
        (lambda: bin_events(E, 10**400), "dt must be finite and > 0 ms; got 1000"),
        (lambda: bin_events(E, np.ones(2)), "dt must be .*one number; got shape"),
        (lambda: bin_events(E, 1.0, dtype=jax.random.key(0)), "dtype must be one of numbers, such"),
        (lambda: rasters([E], 1.0, dtype="complex64"), "dtype must be one of numbers, .*complex"),
        (lambda: rasters({"h": E}, 1.0), "recordings must be a sequence of Events; got {'h'"),
        (lambda: bin_events(events([10**15], [0], shape=(1, 1, 1)), 1.0), "larger dt, .*after"),
        (lambda: bin_events(events([0] * 256, [0] * 256, shape=(1, 1, 1)), 1.0),
         "counts must be <= 255 in uint8; got 256: pass dtype=np.uint16"),
        (lambda: rasters([], 1.0), "recordings must be one or more; got none"),
        (lambda: rasters([E, some(4)], 1.0), "recordings must be of one shape; recording 1 is of"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_what_cannot_be_counted_is_refused(call, said):
    with pytest.raises((ValueError, TypeError), match=said) as told:
        call()
    assert "\n" not in str(told.value)


def test_lists_of_spikes_and_rasters_are_one_another():
    """Of a simulation, at steps that are no whole binary numbers."""
    z = np.random.default_rng(2).poisson(0.2, (700, 5))
    for dt in (0.1, 0.3, 1.0):
        np.testing.assert_array_equal(nj.spikes.counts(nj.spikes.trains(z, dt=dt), dt), z)
