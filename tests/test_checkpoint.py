"""Checkpoints: bit-identical round trips, survival of SIGKILL, refusals."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from neurojax import _files, checkpoint
from neurojax._files import write_whole


class Layer(eqx.Module):
    w: jax.Array
    bias: jax.Array | None = None
    n: int = eqx.field(static=True, default=3)


class State(NamedTuple):
    weights: dict[str, Layer]
    opt_state: Any
    key: jax.Array
    extra: Any = ()


def state(extra: Any = ()) -> State:
    weights = {
        "ff": Layer(jax.random.normal(jax.random.key(0), (5, 7))),
        "a/b.c['d']": Layer(jnp.array([1 / 3, -0.0], jnp.bfloat16), jnp.zeros((0, 3))),
    }
    tx = optax.adam(1e-3)
    return State(weights, tx.init({"w": weights["ff"].w}), jax.random.key(1), extra)


def raw(x) -> tuple:
    """All there is to an array: its kind, dtype, shape and bytes."""
    kind = type(x)
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return kind, str(x.dtype), x.shape, np.asarray(jax.random.key_data(x)).tobytes()
    return kind, str(x.dtype), x.shape, np.asarray(x).tobytes()


def blank(x):
    """Another array of the same kind, dtype and shape."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return np.ones_like(x) if isinstance(x, np.ndarray) else jnp.ones_like(x)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_identical(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    assert [raw(x) for x in jax.tree.leaves(got)] == [raw(x) for x in jax.tree.leaves(expected)]


def test_a_state_comes_back_bit_for_bit_with_its_metadata(tmp_path):
    odd = (
        jnp.array([jnp.nan, jnp.inf, -0.0, 1e-45]),
        jnp.array(True),
        jnp.array([-7, 7], jnp.int8),
        np.arange(3.0),
        np.array([0.1], ml_dtypes.bfloat16),
        jax.random.split(jax.random.key(2, impl="rbg"), 3),
        None,
        {},
    )
    saved = state(odd)
    about = {"hidden": [512, 512], "rate": 0.1, "name": "ring \N{GREEK SMALL LETTER RHO}"}
    checkpoint.save(tmp_path, 7, saved, about)
    step, restored, metadata = checkpoint.restore(tmp_path, jax.tree.map(blank, saved))
    assert (step, metadata) == (7, about)
    assert checkpoint.metadata(tmp_path) == about
    assert_identical(restored, saved)


def test_double_precision_comes_back_bit_for_bit(tmp_path, x64):
    saved = {"v": jnp.array([1 / 3, 5e-324]), "n": jnp.array(2**40), "k": jax.random.key(0)}
    assert saved["v"].dtype == jnp.float64
    checkpoint.save(tmp_path, 0, saved, {})
    assert_identical(checkpoint.restore(tmp_path, saved)[1], saved)


def test_arrays_come_back_where_the_template_has_them(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, PartitionSpec("data")))
    saved = {"sharded": sharded, "free": jnp.ones(16), "key": jax.random.key(0)}
    checkpoint.save(tmp_path, 0, saved, {})
    _, restored, _ = checkpoint.restore(tmp_path, saved)
    assert restored["sharded"].sharding == sharded.sharding
    # arrays bound to one device would refuse to meet those on eight
    mixed = jax.jit(lambda s: s["sharded"] + s["free"] * jax.random.uniform(s["key"]))(restored)
    assert len(mixed.sharding.device_set) == 8
    _, spread, _ = checkpoint.restore(tmp_path, {**saved, "free": sharded})
    assert spread["free"].sharding == sharded.sharding


def test_the_last_two_steps_are_kept_and_the_last_is_restored(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    assert checkpoint.latest(folder) is None
    assert not folder.exists()
    for step in (0, 3, 10):
        checkpoint.save(folder, step, {"n": jnp.array(step)}, {"step": step})
        assert checkpoint.latest(folder) == step
    assert sorted(path.name for path in folder.iterdir()) == ["10", "3"]
    step, restored, metadata = checkpoint.restore(folder, {"n": jnp.array(0)})
    assert (step, int(restored["n"]), metadata) == (10, 10, {"step": 10})


def test_nothing_reaches_the_terminal(tmp_path, capfd, caplog):
    checkpoint.save(tmp_path, 0, state(), {})
    checkpoint.restore(tmp_path, state())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# --- killed ---

SAVE_FOR_EVER = """
import itertools, sys
import jax
from neurojax import checkpoint
from neurojax._files import write_whole
def killed_state(step):
    key = jax.random.fold_in(jax.random.key(0), step)
    return {"w": jax.random.bits(key, (128, 128)), "key": key}
folder, metrics, pad = sys.argv[1], sys.argv[2], "x" * 1_000_000
last = checkpoint.latest(folder)
for step in itertools.count(0 if last is None else last + 1):
    checkpoint.save(folder, step, killed_state(step), {"step": step})
    write_whole(metrics, f'{{"step": {step}, "pad": "{pad}"}}')
    print(step, flush=True)
"""


def killed_state(step):
    key = jax.random.fold_in(jax.random.key(0), step)
    return {"w": jax.random.bits(key, (128, 128)), "key": key}


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_its_last_whole_step(tmp_path):
    folder, metrics = tmp_path / "checkpoints", tmp_path / "metrics.json"
    reached = -1
    for moment in np.random.default_rng(0).uniform(0.0, 0.6, 2):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(folder), str(metrics)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            time.sleep(moment)
            process.kill()
            announced = int([*lines, *process.stdout][-1])
        assert announced > reached
        step, restored, metadata = checkpoint.restore(folder, killed_state(0))
        # what was announced is there; the one being saved may be there, whole
        assert step in (announced, announced + 1)
        assert metadata == {"step": step}
        assert_identical(restored, killed_state(step))
        assert step - json.loads(metrics.read_text())["step"] in (0, 1)
        reached = step
    checkpoint.save(folder, reached + 1, killed_state(0), {})
    assert sorted(int(path.name) for path in folder.iterdir()) == [reached, reached + 1]


def test_steps_half_written_or_half_deleted_do_no_harm(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, state(), {"step": step})
    for step in (3, 7):  # killed while writing, the second in a run that went further
        shutil.copytree(tmp_path / "2", tmp_path / f".unfinished-{step}")
    shutil.copytree(tmp_path / "1", tmp_path / ".unfinished-old-0")
    shutil.rmtree(tmp_path / ".unfinished-old-0" / "state")  # killed while deleting
    assert checkpoint.restore(tmp_path, state())[0] == 2
    checkpoint.save(tmp_path, 3, state(), {"step": 3})
    assert names(tmp_path) == ["2", "3"]
    assert checkpoint.metadata(tmp_path) == {"step": 3}


# --- damaged ---


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    for step in (1, 2):
        checkpoint.save(folder, step, killed_state(step), {"step": step})
    return folder


def whole_or_before(folder):
    """The step that is taken, which must be what was saved, bit for bit; and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        step, restored, about = checkpoint.restore(folder, killed_state(0))
    assert about == {"step": step}
    assert_identical(restored, killed_state(step))
    return step, [str(x.message) for x in said]


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def test_a_flipped_bit_anywhere_in_a_step_brings_back_the_one_before(two_steps, tmp_path):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    random = np.random.default_rng(0)
    for file in files_of(folder / "2"):
        content = file.read_bytes()
        for at in random.integers(len(content), size=3):
            bad = bytearray(content)
            bad[at] ^= 1 << random.integers(8)
            file.write_bytes(bad)
            step, said = whole_or_before(folder)
            if step == 1:
                (line,) = said
                assert f"damaged checkpoint in '{folder}': step 2 ({file.name}" in line.replace(
                    f"({file.relative_to(folder / '2').parent.as_posix()}/", "("
                )
                assert line.endswith("; step 1 takes its place")
            else:  # harmless: the layout of what the file says
                assert file.name == "checkpoint.json"
        file.write_bytes(content)
    assert whole_or_before(folder) == (2, [])


HARMS = {
    "empty": lambda file: file.write_bytes(b""),
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-2]),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\n{}"),
    "gone": lambda file: file.unlink(),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "a link": lambda file: (file.unlink(), file.symlink_to(file.parent)),
    "nested": lambda file: file.write_text("[" * 100_000),
    "binary": lambda file: file.write_bytes(bytes(range(256))),
} | {
    text: lambda file, text=text: file.write_text(text)
    for text in ("[]", "{}", "1", '"a"', "null", "true", '{"digest": 1}', '{"digest": []}')
}


def test_a_file_that_is_another_or_gone_brings_back_the_step_before(two_steps, tmp_path):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    for file in files_of(folder / "2"):
        content = file.read_bytes()
        for name, harm in HARMS.items():
            harm(file)
            with pytest.warns(UserWarning, match="step 1 takes its place"):
                assert checkpoint.metadata(folder) == {"step": 1}, (name, file)
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink(True)
            file.write_bytes(content)
    assert whole_or_before(folder) == (2, [])


def test_after_a_fallback_everything_agrees_and_the_damaged_step_goes(two_steps, tmp_path):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    shutil.rmtree(folder / "2" / "state")
    for use, expected in ((checkpoint.latest, 1), (checkpoint.metadata, {"step": 1})):
        with pytest.warns(UserWarning, match="damaged .* step 2 .* step 1 takes its place"):
            assert use(folder) == expected
    with pytest.raises(ValueError, match="step must be > 1, the last one saved; got 1"):
        checkpoint.save(folder, 1, killed_state(1), {})
    checkpoint.save(folder, 2, killed_state(2), {"step": 2})
    assert whole_or_before(folder) == (2, [])
    assert names(folder) == ["1", "2"]


def test_a_step_below_the_damaged_one_takes_its_place(two_steps, tmp_path):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    shutil.move(folder / "2", folder / "9")
    (folder / "9" / "checkpoint.json").write_text("{}")
    (folder / "8").write_text("a file")
    checkpoint.save(folder, 5, killed_state(5), {"step": 5})
    assert whole_or_before(folder) == (5, [])
    assert names(folder) == ["1", "5"]


def test_if_no_step_is_whole_both_faults_are_said(two_steps, tmp_path):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    (folder / "1" / "checkpoint.json").unlink()
    next((folder / "2" / "state").rglob("manifest.ocdbt")).write_bytes(b"")
    message = (
        rf"no checkpoint in '{folder}' is whole: step 2 \(state/.*manifest.ocdbt has changed\),"
        r" step 1 \(checkpoint.json is missing\)"
    )
    for use in (lambda f: checkpoint.restore(f, state()), checkpoint.metadata, checkpoint.latest):
        with pytest.raises(ValueError, match=message):
            use(folder)
    checkpoint.save(folder, 1, killed_state(1), {"step": 1})  # whoever begins anew can
    assert whole_or_before(folder) == (1, [])


def test_a_checkpoint_of_a_later_version_is_refused_by_name(two_steps, tmp_path):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    about = _files.unsealed(folder / "2" / "checkpoint.json")
    assert about["format"] == 2
    (folder / "2" / "checkpoint.json").write_text(_files.sealed(about | {"format": 3}))
    message = (
        r"'.*/2' was made by neurojax checkpoint format 3; this one reads up to 2: upgrade neurojax"
    )
    for use in (
        lambda f: checkpoint.restore(f, state()), checkpoint.metadata, checkpoint.latest,
        lambda f: checkpoint.save(f, 2, state(), {}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            use(folder)


# --- full disks ---


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
    except FileNotFoundError:
        pytest.skip("no file systems can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_an_error_that_names_the_directory(small_disk, capfd):
    large = {"w": jax.random.bits(jax.random.key(0), (512, 512))}
    small = {"w": jnp.arange(3)}
    checkpoint.save(small_disk / "run", 1, small, {})
    with pytest.raises(OSError, match=rf"No space left on device: '{small_disk}/run'"):
        checkpoint.save(small_disk / "run", 2, large, {})
    assert capfd.readouterr() == ("", "")
    assert names(small_disk / "run") == ["1"]
    checkpoint.save(small_disk / "run", 2, small, {})
    assert checkpoint.latest(small_disk / "run") == 2


@pytest.mark.parametrize("where", ["fsync", "rename", "mkdir"])
def test_an_error_of_the_disk_leaves_what_was_there(two_steps, tmp_path, monkeypatch, where):
    folder = shutil.copytree(two_steps, tmp_path / "run")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "some part")

    with monkeypatch.context() as patch:
        patch.setattr(f"os.{where}", full)
        with pytest.raises(OSError, match=rf"No space left on device: '{folder}'"):
            checkpoint.save(folder, 3, killed_state(3), {"step": 3})
    step, said = whole_or_before(folder)
    assert (step in (2, 3), said) == (True, [])
    checkpoint.save(folder, 4, killed_state(4), {"step": 4})
    assert whole_or_before(folder) == (4, [])


# --- refusals ---


@pytest.mark.parametrize("use", [lambda f: checkpoint.restore(f, state()), checkpoint.metadata])
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_to_restore_is_refused_with_the_folder(tmp_path, use, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match=f"must hold a checkpoint; got '{folder}'"):
        use(folder)
    assert folder.exists() == exists


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (state()._replace(weights={}), r"state\.weights\[.*\]\.w must be .* as saved; got nothing"),
        (state(extra=jnp.ones(2)), r"state\.extra must be absent, .*; got float32\[2\]"),
        (
            state()._replace(weights={**state().weights, "ff": Layer(jnp.ones((5, 8)))}),
            r"state\.weights\['ff'\]\.w must be float32\[5, 7\] as saved; got float32\[5, 8\]",
        ),
        (
            state()._replace(weights={**state().weights, "ff": Layer(jnp.ones((5, 7), jnp.int32))}),
            r"\['ff'\]\.w must be float32\[5, 7\] as saved; got int32\[5, 7\]",
        ),
        (state()._replace(key=jax.random.key(0, impl="rbg")), r"state\.key must be key<fry>\[\]"),
    ],
)
def test_a_template_of_another_structure_is_refused_by_its_leaf(tmp_path, template, message):
    checkpoint.save(tmp_path, 0, state(), {})
    with pytest.raises(ValueError, match=message):
        checkpoint.restore(tmp_path, template)


@pytest.mark.usefixtures("untyped")
def test_what_cannot_be_saved_is_refused_and_leaves_no_trace(tmp_path):
    checkpoint.save(tmp_path, 4, state(), {})
    for step in (3, 4):
        with pytest.raises(ValueError, match=f"step must be > 4, the last one saved; got {step}"):
            checkpoint.save(tmp_path, step, state(), {})
    with pytest.raises(ValueError, match=r"state\.extra\[1\] must be an array; got function"):
        checkpoint.save(tmp_path, 5, state(extra=(jnp.ones(2), abs_of)), {})
    for step in (5.0, 1.5, True, "5", None, -1, 2**63):
        with pytest.raises(ValueError, match="step must be (a whole number )?>= 0.*; got"):
            checkpoint.save(tmp_path, step, state(), {})
    for x in (np.array(["a"]), np.array([None]), np.array([0], "M8[s]")):
        with pytest.raises(ValueError, match=r"state\.extra must be an array of numbers; got"):
            checkpoint.save(tmp_path, 5, state(extra=x), {})
    with pytest.raises(ValueError, match=r"state\['x'\] must be known: save .* outside jax.jit"):
        jax.jit(lambda x: checkpoint.save(tmp_path, 5, {"x": x}, {}))(1.0)
    with pytest.raises(TypeError, match="metadata must be a dict; got None"):
        checkpoint.save(tmp_path, 5, state(), None)
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.save(tmp_path, 5, state(), {"path": tmp_path})
    for about in ({1: 2}, {"a": [{None: 0}]}):
        with pytest.raises(TypeError, match="metadata must have strings as keys; got"):
            checkpoint.save(tmp_path, 5, state(), about)
    for about in ({"loss": float("nan")}, {"a": [{"b": (np.inf,)}]}, nested(100_000)):
        with pytest.raises(ValueError, match="metadata must be what JSON can hold"):
            checkpoint.save(tmp_path, 5, state(), about)
    assert names(tmp_path) == ["4"]


def nested(depth):
    about = {}
    for _ in range(depth):
        about = {"in": about}
    return about


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("directory", "error", "message"),
    [
        ("", ValueError, "directory must be a path, not empty and without NUL; got ''"),
        ("a\0b", ValueError, "directory must be a path, .* without NUL; got 'a.x00b'"),
        ("\ud800", ValueError, "directory must be a path in Unicode; got "),
        ("a/" + "b" * 256, ValueError, "a path of names of at most 255 bytes; got 256: 'bbb"),
        ("\u00e9" * 128, ValueError, "a path of names of at most 255 bytes; got 256: '\u00e9"),
        ("a/" * 2000, ValueError, "directory must be a path of at most 3840 bytes; got 4"),
        (__file__, ValueError, "directory must be the path of a folder; got '.*', a file"),
        (None, TypeError, "directory must be a path; got None"),
        (3, TypeError, "directory must be a path; got 3"),
        (b"a", TypeError, "directory must be a path; got b'a'"),
    ],
)
def test_what_is_no_folder_is_refused(directory, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (
        lambda f: checkpoint.save(f, 0, state(), {}),
        lambda f: checkpoint.restore(f, state()),
        checkpoint.metadata,
        checkpoint.latest,
    ):
        with pytest.raises(error, match=message):
            use(directory)
    assert names(tmp_path) == []


def test_the_longest_path_that_is_taken_has_room_for_all_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / ("a" * 255) / "".join(f"{'b' * 99}/" for _ in range(60))
    folder = os.fsdecode(os.fsencode(deep)[:3840].rstrip(b"/"))
    checkpoint.save(folder, 1, state(), {})
    assert checkpoint.latest(folder) == 1


def abs_of(x):
    return abs(x)


# --- whole files ---


@pytest.mark.parametrize("content", ["caf\N{LATIN SMALL LETTER E WITH ACUTE}\n", b"\0\xff\r\n"])
def test_write_whole_replaces_a_file_by_exactly_its_content(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text("old and longer")
    write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
