"""Every number has a birth certificate, and JSON is written whole, strict, or not at all."""

import json
import math
import os
import subprocess

import pytest
import torch

from tightlip.errors import TightlipError
from tightlip.provenance import commit, machine, provenance, versions, write_json


def git(folder, *arguments):
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_commit_of_a_clean_tree(repository):
    assert commit(repository) == (git(repository, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("change", ["a", "untracked"])
def test_changed_and_untracked_files_make_the_tree_dirty(repository, change):
    (repository / change).write_text("2")
    assert commit(repository) == (git(repository, "rev-parse", "HEAD"), True)


def test_rows_in_results_are_no_change_of_the_source(repository):
    (repository / "results" / "study").mkdir(parents=True)
    (repository / "results" / "study" / "row.json").write_text("{}")
    assert commit(repository)[1] is False
    assert commit(repository / "results")[1] is False
    (repository / "src").mkdir()
    (repository / "src" / "results").write_text("2")  # only the folder at the top
    assert commit(repository)[1] is True


def test_no_commit_outside_a_checkout_or_before_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == (None, None)
    git(tmp_path, "init", "-q")
    assert commit(tmp_path) == (None, None)


def test_no_git_means_no_commit(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit(repository) == (None, None)


def test_an_installed_copy_does_not_claim_the_commit_of_a_repository_around_it(repository, monkeypatch):
    """As in a virtual environment inside somebody's checkout: the file is there, but git does not track it."""
    from tightlip import provenance

    (repository / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(repository / "provenance.py"))
    assert commit() == (None, None)
    git(repository, "add", "provenance.py")
    git(repository, "commit", "-q", "-m", "second")
    assert commit() == (git(repository, "rev-parse", "HEAD"), False)


def test_birth_certificate_names_all_that_numbers_depend_on():
    row = provenance("cpu")
    assert set(row) == {"commit", "dirty", "versions", "device", "threads", "machine"}
    assert (row["device"], row["threads"]) == ("cpu", torch.get_num_threads())
    assert set(versions()) == {"python", "torch", "numpy", "tightlip"} and all(versions().values())
    assert machine("cpu")


def test_json_is_strict_at_any_depth(tmp_path):
    content = {"a": [1.5, math.nan, {"b": (math.inf, -math.inf)}], "c": True, "d": None, "e": 3}
    write_json(tmp_path / "x.json", content)
    text = (tmp_path / "x.json").read_text()
    strict = json.loads(text, parse_constant=pytest.fail)
    assert strict == {"a": [1.5, None, {"b": [None, None]}], "c": True, "d": None, "e": 3}
    assert text.endswith("\n") and os.listdir(tmp_path) == ["x.json"]


def test_numbers_survive_json_bit_for_bit(tmp_path):
    numbers = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist()
    write_json(tmp_path / "x.json", numbers)
    assert json.loads((tmp_path / "x.json").read_text()) == numbers


def test_a_failed_write_keeps_the_earlier_file(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text()) == 1 and os.listdir(tmp_path) == ["x.json"]


def test_a_folder_in_the_place_of_the_file_leaves_nothing_half_written(tmp_path):
    (tmp_path / "x.json").mkdir()
    with pytest.raises(TightlipError, match=r"x\.json"):
        write_json(tmp_path / "x.json", 1)
    assert os.listdir(tmp_path) == ["x.json"]
