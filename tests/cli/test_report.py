"""`tightlip report` makes the page again, of one run or of several, from their JSON alone."""

import os
import shutil

import numpy as np
import pytest

from tightlip.cli import main

QUICK = ["--hidden", "8", "--epochs", "1", "--attack-images", "4", "--attack-steps", "2", "--attack-restarts", "1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with two finished runs, ``a`` and ``b``."""
    folder, generator = tmp_path_factory.mktemp("finished"), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        np.savez("d.npz", x=generator.random((30, 1, 4, 4)).astype(np.float32), y=np.arange(30) % 3)
        for name, norm in (("a", "2"), ("b", "inf")):
            assert main(["train", "--data", "d.npz", "--name", name, "--norm", norm, *QUICK]) == 0
    return folder


@pytest.fixture(autouse=True)
def runs(finished, tmp_path, monkeypatch):
    """Copies of them, to be changed."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def page(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.drawn
def test_the_page_is_rebuilt_byte_for_byte_from_the_json(capsys):
    before = page("runs/a/report.html")
    for name in ("report.html", "model.safetensors", "config.json"):
        os.remove(f"runs/a/{name}")
    capsys.readouterr()
    assert main(["report", "runs/a"]) == 0
    assert "runs/a/report.html" in capsys.readouterr().out
    assert page("runs/a/report.html") == before


def test_several_runs_share_one_page_in_the_working_folder():
    assert main(["report", "runs/a", "runs/b"]) == 0
    text = page("report.html")
    assert all(f">{name}<" in text or f" {name} " in text or f'"{name}"' in text for name in ("a", "b"))
    assert "http://" not in text.replace("http://www.w3.org", "") and "<script src" not in text


@pytest.mark.drawn
def test_the_page_goes_where_it_is_asked():
    before = page("runs/a/report.html")
    assert main(["report", "runs/a", "--output", "own.html"]) == 0
    assert page("own.html") == page("runs/a/report.html") == before


def test_a_damaged_run_leaves_the_earlier_page_alone(capsys):
    before = page("runs/a/report.html")
    with open("runs/a/certificate.json", "w") as file:
        file.write("{")
    assert main(["report", "runs/a"]) == 2
    assert "certificate.json" in capsys.readouterr().err
    assert page("runs/a/report.html") == before
    assert set(os.listdir("runs/a")) == {
        "certificate.json",
        "config.json",
        "metrics.json",
        "model.safetensors",
        "report.html",
    }


@pytest.mark.parametrize("left", ["config.json", "checkpoint.pt"])
def test_a_stopped_run_among_others_is_left_out_by_name(left, capsys):
    os.mkdir("runs/half")
    with open(f"runs/half/{left}", "w") as file:
        file.write("{}")
    assert main(["report", "runs/a", "runs/b", "--output", "two.html"]) == 0
    capsys.readouterr()
    assert main(["report", "runs/a", "runs/b", "runs/half"]) == 0
    out = capsys.readouterr().out
    assert "note  runs/half holds a run that is not finished (tightlip train --resume --name half): it is left" in out
    assert page("report.html") == page("two.html")
    assert main(["report", "runs/half"]) == 2
    assert "runs/half holds a run that is not finished (tightlip train --resume" in capsys.readouterr().err
