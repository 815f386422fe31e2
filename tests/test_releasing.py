"""A release is refused, in one line, unless the tree is what its version says."""

import subprocess
import sys
from pathlib import Path

import pytest
import release


def commit(root, *arguments):
    line = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e", *arguments]
    subprocess.run(line, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "9.8.7"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 9.8.7\n")
    (tmp_path / "CITATION.cff").write_text("title: x\nversion: 9.8.7\nlicense: y\n")
    commit(tmp_path, "init")
    commit(tmp_path, "add", ".")
    commit(tmp_path, "commit", "-m", "All")
    commit(tmp_path, "tag", "v9.8.7")
    return tmp_path


def test_a_clean_tree_that_is_tagged_with_its_version_is_ready(tree):
    assert release.ready(tree) == "9.8.7"


def test_a_dirty_tree_is_refused(tree):
    (tree / "CHANGELOG.md").write_text("more")
    with pytest.raises(release.Refused, match=r"must be clean; CHANGELOG.md is not committed"):
        release.ready(tree)


@pytest.mark.parametrize("other", [None, "v9.8.6"])
def test_a_tree_without_its_tag_is_refused(tree, other):
    commit(tree, "tag", "-d", "v9.8.7")
    if other:
        commit(tree, "tag", other)
    found = f"its tags are {other}" if other else "it has none"
    with pytest.raises(release.Refused, match=rf"tagged v9.8.7; {found}: git tag v9.8.7"):
        release.ready(tree)


@pytest.mark.parametrize(
    ("name", "line"), [("CHANGELOG.md", "## 9.8.7"), ("CITATION.cff", "version: 9.8.7")]
)
def test_what_says_another_version_is_refused(tree, name, line):
    text = (tree / name).read_text()
    (tree / name).write_text(text.replace(line, line.replace("7", "6")))
    commit(tree, "commit", "-am", "Another")
    commit(tree, "tag", "-f", "v9.8.7")
    with pytest.raises(release.Refused, match=rf"{name} must .*{line}"):
        release.ready(tree)


def test_what_an_archive_has_too_much_or_too_little_is_named():
    lines = list(release.differences("x.whl", {"a", "b"}, {"b", "c"}))
    assert lines == ["x.whl must not hold a", "x.whl must hold c"]


def test_a_file_that_names_where_it_was_made_is_refused():
    files = {"a.py": b"path = '%s/x'" % str(release.ROOT).encode(), "b.py": b"path = 'x'"}
    lines = list(release.local_paths("x.whl", iter(files.items())))
    assert lines == [f"x.whl: a.py must not name {release.ROOT}"]


def test_the_python_that_runs_is_found():
    name = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert Path(release.python(name)).exists()
    assert release.python("2.1") is None
