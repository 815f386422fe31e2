"""Build what is released and try it: `make release`, on a tree that is tagged with its version.

Wheel and sdist go into dist/; each is installed, with its tests' needs and nothing else, in an
empty environment of every Python that pyproject.toml allows and this machine has, and the tests run
on what was installed. Arguments go to pytest in place of its own.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST, ENVS = ROOT / "dist", ROOT / ".envs"
PACKAGES = ("neurojax", "hardware", "experiments")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
QUICK = ["-q", "-n", "2", "--dist", "loadfile"]


class Refused(Exception):
    """What is said in one line."""


def main(arguments: list[str]) -> int:
    """Refuse, or build, look and try; every step says one line."""
    try:
        version = ready()
        wheel, sdist = built(version)
        for fault in (*wheel_faults(wheel), *sdist_faults(sdist)):
            raise Refused(fault)
        print(f"built {wheel.name} and {sdist.name}: three packages, nothing else, no local path")
        here = {name: path for name in PYTHONS if (path := python(name))}
        print(f"Python found: {', '.join(here)}; missing: {', '.join({*PYTHONS} - {*here}) or '-'}")
        for name, interpreter in here.items():
            for archive in (wheel, sdist):
                tried(name, interpreter, archive, sdist, arguments or QUICK)
    except Refused as refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2
    return 0


def ready(root: Path = ROOT) -> str:
    """The version, if the tree is clean, tagged with it, and all that says it agrees."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    changed = git(root, "status", "--porcelain").split("\n")[0]
    if changed:
        raise Refused(
            f"the tree must be clean; {changed.split()[-1]} is not committed: commit, tag again"
        )
    tags = git(root, "tag", "--points-at", "HEAD").split()
    if f"v{version}" not in tags:
        found = f"its tags are {', '.join(tags)}" if tags else "it has none"
        raise Refused(f"HEAD must be tagged v{version}; {found}: git tag v{version}")
    if not re.search(rf"^## {re.escape(version)}$", (root / "CHANGELOG.md").read_text(), re.M):
        raise Refused(f"CHANGELOG.md must have a heading '## {version}'")
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text():
        raise Refused(f"CITATION.cff must say 'version: {version}'")
    return version


def git(root: Path, *arguments: str) -> str:
    """What git prints."""
    line = ["git", "-C", str(root), *arguments]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def built(version: str) -> tuple[Path, Path]:
    """Wheel and sdist, by the build back end alone; nothing is fetched."""
    shutil.rmtree(DIST, ignore_errors=True)
    line = [sys.executable, "-m", "hatchling", "build", "-d", str(DIST)]
    subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    stem = f"neurojax-{version}"
    return DIST / f"{stem}-py3-none-any.whl", DIST / f"{stem}.tar.gz"


def tracked(*folders: str) -> set[str]:
    """Files of the commit, in these folders or in all."""
    return set(git(ROOT, "ls-files", "--", *folders).split("\n"))


def wheel_faults(wheel: Path) -> Iterator[str]:
    """What a wheel has too much or too little, or says of where it was made."""
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
        yield from differences(wheel.name, names, tracked(*PACKAGES))
        yield from local_paths(wheel.name, ((n, archive.read(n)) for n in names))


def sdist_faults(sdist: Path) -> Iterator[str]:
    """The same of an sdist, which holds the whole commit."""
    with tarfile.open(sdist) as archive:
        files = {m.name.partition("/")[2]: m for m in archive.getmembers() if m.isfile()}
        yield from differences(sdist.name, set(files) - {"PKG-INFO"}, tracked())
        read = ((n, archive.extractfile(m)) for n, m in files.items())
        yield from local_paths(sdist.name, ((n, f.read()) for n, f in read if f))


def differences(name: str, has: set[str], should: set[str]) -> Iterator[str]:
    """Files that are there and should not be, or the reverse."""
    for word, files in (("must not hold", has - should), ("must hold", should - has)):
        for file in sorted(files):
            yield f"{name} {word} {file}"


def local_paths(name: str, files: Iterator[tuple[str, bytes]]) -> Iterator[str]:
    """Files that name the folder in which they were made, or the home of who made them."""
    for file, content in files:
        for path in (ROOT, Path.home()):
            if len(path.parts) > 1 and os.fsencode(path) + b"/" in content:
                yield f"{name}: {file} must not name {path}"


def python(name: str) -> str | None:
    """An interpreter of this version, on the path or among pyenv's."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{name}")]
    candidates += [str(path / "bin/python") for path in versions.glob(f"{name}.*")]
    say = "import sys; print(*sys.version_info[:2], sep='.')"
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-c", say], capture_output=True, text=True, check=False)
        if done.stdout.strip() == name:
            return candidate
    return None


def tried(name: str, interpreter: str, archive: Path, sdist: Path, arguments: list[str]) -> None:
    """Tests of the sdist on what was installed from `archive`, and on nothing else."""
    kind = "wheel" if archive.suffix == ".whl" else "sdist"
    env, tree = ENVS / f"release-{name}-{kind}", ENVS / f"release-{name}-{kind}-tests"
    uv = [str(ENVS / "uv/bin/uv")]
    run([*uv, "venv", "--quiet", "--clear", "--python", interpreter, str(env)])
    inside = str(env / "bin/python")
    run([*uv, "pip", "install", "--quiet", "--python", inside, f"{archive}[test]"])
    shutil.rmtree(tree, ignore_errors=True)
    with tarfile.open(sdist) as source:
        source.extractall(tree, filter="data")
    (tests,) = tree.iterdir()
    for package in PACKAGES:  # in place of the sources, what was installed
        shutil.rmtree(tests / package)
        (installed,) = env.glob(f"lib/python*/site-packages/{package}")
        (tests / package).symlink_to(installed)
    run([inside, "-m", "pytest", *arguments], cwd=tests)
    print(f"Python {name}, {kind}: installed, tests passed")
    shutil.rmtree(env)
    shutil.rmtree(tree)


def run(line: list[str], cwd: Path = ROOT) -> None:
    """A command, or its failure in a line."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"UV_PYTHON_DOWNLOADS": "never", "PYTHONUNBUFFERED": "1"}
    if subprocess.run(line, cwd=cwd, env=env, check=False).returncode:
        raise Refused(f"{' '.join(line)} failed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
