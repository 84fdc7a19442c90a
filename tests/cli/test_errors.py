"""A mistake of the user is one sentence on stderr and exit code 2; no traceback, and nothing half-written."""

import json
import os

import numpy as np
import pytest
import torch
from processes import python
from torch import nn

from tightlip import MaxMin
from tightlip.cli import main
from tightlip.serialization import save

SMALL = ["--hidden", "16", "--epochs", "1", "--batch-size", "32", "--attack-images", "4", "--attack-steps", "2"]


pytestmark = pytest.mark.usefixtures("workplace")


def arrays(examples=60):
    generator = np.random.default_rng(0)
    return generator.random((examples, 1, 6, 6)).astype(np.float32), np.arange(examples) % 3


def own(path="own.npz", **changes):
    x, y = arrays()
    np.savez(path, **({"x": x, "y": y} | changes))
    return str(path)


def model(path="m.safetensors", width=36, classes=3):
    save(nn.Sequential(nn.Flatten(), nn.Linear(width, 4), MaxMin(), nn.Linear(4, classes)), path)
    return path


def refused(capsys, *command):
    """The one sentence that a command ends with."""
    assert main(list(command)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tightlip: ") and err.endswith("\n") and err.count("\n") == 1, err
    assert "Traceback" not in err and len(err) < 600
    return err


def files():
    return sorted(path for path, _, names in os.walk(".") for path in [os.path.join(path, name) for name in names])


BAD_ARRAYS = {
    "NaN": lambda: {"x": np.where(np.arange(36).reshape(1, 1, 6, 6) == 3, np.nan, arrays()[0])},
    "infinite": lambda: {"x": np.full((60, 4), np.inf)},
    "images but": lambda: {"x": arrays()[0][:50]},
    "shape": lambda: {"x": np.zeros(60, np.float32)},
    "labels": lambda: {"y": arrays()[1].astype(float)},
    "labels from": lambda: {"y": arrays()[1] - 1},
    "labels from 0 to 9": lambda: {"y": np.where(arrays()[1] == 2, 9, arrays()[1])},
    "three": lambda: {"y": np.where(np.arange(60) == 0, 1, 0)},
    "empty": lambda: {"x": np.zeros((0, 4), np.float32), "y": np.zeros(0, np.int64)},
    "save plain number arrays": lambda: {"x": np.array([{}] * 60, dtype=object)},
}


@pytest.mark.parametrize("sentence", BAD_ARRAYS)
def test_bad_arrays(capsys, sentence):
    path = own(**BAD_ARRAYS[sentence]())
    assert sentence.split(" from")[0] in refused(capsys, "train", "--data", path, *SMALL)
    assert files() == ["./own.npz"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_arrays(capsys, share, workplace):
    path = workplace / own()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "own.npz" in refused(capsys, "train", "--data", "own.npz", *SMALL)
    assert files() == ["./own.npz"]


def test_absent_arrays(capsys):
    assert "no.npz does not exist" in refused(capsys, "train", "--data", "no.npz", *SMALL)
    assert files() == []


def test_unknown_data_names_the_known_ones(capsys):
    sentence = refused(capsys, "train", "--data", "mnits", *SMALL)
    assert "'mnits'" in sentence and "mnist5k" in sentence and ".npz" in sentence
    assert files() == []


def test_missing_mnist_names_the_variable_and_the_option_and_takes_no_other_data(capsys):
    sentence = refused(capsys, "train", "--data", "mnist", *SMALL)
    assert "TIGHTLIP_DATA" in sentence and "--download" in sentence
    assert files() == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--hidden", "15"], "15"),
        (["--hidden", "0"], "widths"),
        (["--epochs", "0"], "epochs=0"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--learning-rate", "-1"], "rate"),
        (["--learning-rate", "nan"], "rate"),
        (["--temperature", "0"], "temperature"),
        (["--k", "0"], "K"),
        (["--eps", "-0.1"], "eps"),
        (["--shift", "-1"], "shift"),
        (["--attack-images", "0"], "attack"),
        (["--attack-restarts", "0"], "attack"),
        (["--seed", "1" + "0" * 30], "seed"),
        (["--threads", "0"], "--threads must be an integer from 1 to 4096, got 0"),
        (["--device", "tpu9"], "--device tpu9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_options(capsys, options, word):
    path = own()
    assert word.lower() in refused(capsys, "train", "--data", path, *SMALL, *options).lower()
    assert files() == ["./own.npz"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("command", [["train", *SMALL], ["certify", "m.safetensors"]])
def test_a_gpu_that_is_not_there(capsys, command):
    model()
    assert "--device cuda is not available" in refused(capsys, *command, "--device", "cuda")
    assert files() == ["./m.safetensors"]


def test_a_training_that_diverges_in_its_first_epoch_leaves_no_folder(capsys):
    path = own(x=np.full((60, 1, 6, 6), 3e38, np.float32))
    assert "learning rate" in refused(capsys, "train", "--data", path, "--name", "r", *SMALL)
    assert not os.path.exists("runs/r")


def test_an_existing_folder_needs_resume_and_stays_as_it_is(capsys):
    os.makedirs("runs/r")
    assert "--resume" in refused(capsys, "train", "--name", "r", *SMALL)
    assert os.listdir("runs/r") == []


def test_resume_needs_a_name_and_a_run(capsys):
    assert "--name" in refused(capsys, "train", "--resume", *SMALL)
    assert "no run" in refused(capsys, "train", "--resume", "--name", "r", *SMALL)
    assert files() == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_resuming_a_damaged_run_is_one_sentence(capsys, content, workplace):
    (workplace / "runs/r").mkdir(parents=True)
    (workplace / "runs/r/config.json").write_text(content)
    (workplace / "runs/r/checkpoint.pt").write_bytes(b"garbage")
    assert "runs/r" in refused(capsys, "train", "--data", own(), "--name", "r", "--resume", *SMALL)
    assert (workplace / "runs/r/checkpoint.pt").read_bytes() == b"garbage"


@pytest.mark.parametrize("runs", ["file", "file/below"])
def test_a_file_in_the_place_of_the_folder(capsys, runs, workplace):
    (workplace / "file").write_text("mine")
    assert "file" in refused(capsys, "train", "--data", own(), "--runs", runs, *SMALL)
    assert (workplace / "file").read_text() == "mine"


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(capsys, workplace):
    path = own()
    workplace.chmod(0o500)
    try:
        assert "cannot be written" in refused(capsys, "train", "--data", path, *SMALL)
    finally:
        workplace.chmod(0o700)


@pytest.mark.parametrize("command", [["train"], ["certify", "m.safetensors"], ["report", "r"]])
def test_unknown_options_are_parse_errors(capsys, command):
    assert "--nonsense" in refused(capsys, *command, "--nonsense", "1")
    assert files() == []


@pytest.mark.parametrize(
    "command",
    [
        ["trian"],
        ["certify"],
        ["train", "--epochs", "many"],
        ["train", "--norm", "3"],
        ["train", "--activation", "gelu"],
    ],
)
def test_what_cannot_be_parsed_exits_with_2(capsys, command):
    assert refused(capsys, *command)
    assert files() == []


def test_certify_without_a_model_file(capsys):
    assert "no file m.safetensors" in refused(capsys, "certify", "m.safetensors")


@pytest.mark.parametrize("content", [b"", b"garbage", "half"])
def test_certify_with_a_damaged_model(capsys, content, workplace):
    path = workplace / model()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    assert "m.safetensors" in refused(capsys, "certify", "m.safetensors", "--data", own())


@pytest.mark.parametrize(("width", "classes"), [(36, 2), (35, 3), (72, 3)])
def test_certify_with_data_that_do_not_fit_the_model(capsys, width, classes):
    word = "labels" if classes == 2 else "do not fit"
    path = model(width=width, classes=classes)
    assert word in refused(capsys, "certify", path, "--data", own(), "--output", "radii.json")
    assert not os.path.exists("radii.json")


@pytest.mark.parametrize(
    ("options", "word"), [(["--norm", "3"], "norm"), (["--eps", "-1"], "eps"), (["--data", "nope"], "'nope'")]
)
def test_certify_with_impossible_options(capsys, options, word):
    path, data = model(), own()
    assert word in refused(capsys, "certify", path, "--data", data, "--output", "radii.json", *options)
    assert not os.path.exists("radii.json")


def test_certify_to_an_absent_folder(capsys):
    assert "absent" in refused(capsys, "certify", model(), "--data", own(), "--output", "absent/radii.json")
    assert not os.path.exists("absent")


def test_report_of_what_is_no_run(capsys, workplace):
    assert "r" in refused(capsys, "report", "r")
    (workplace / "r").mkdir()
    (workplace / "r/metrics.json").write_text("{")
    assert "metrics.json" in refused(capsys, "report", "r")
    assert os.listdir("r") == ["metrics.json"]


def test_an_interruption_is_one_sentence_and_130(capsys, monkeypatch):
    from tightlip.cli import train

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert main(["train", "--name", "r"]) == 130
    assert capsys.readouterr().err.count("\n") == 1 and not os.path.exists("runs/r")


def test_the_process_itself_ends_with_one_sentence_and_exit_code_2():
    """Outside the tests' shape checks, as a user meets it."""
    data = own(x=np.full((60, 1, 6, 6), np.nan, np.float32))
    program = "import sys; from tightlip.cli import main; sys.exit(main())"
    done = python("-c", program, "train", "--data", data, *SMALL)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("tightlip: ") and "NaN" in done.stderr
    assert files() == ["./own.npz"]


def test_changed_options_on_resume_name_what_the_run_began_with(capsys, workplace):
    (workplace / "runs/r").mkdir(parents=True)
    path = own()
    assert main(["train", "--data", path, "--name", "s", *SMALL]) == 0
    began = json.loads((workplace / "runs/s/config.json").read_text())
    (workplace / "runs/r/config.json").write_text(json.dumps(began))
    capsys.readouterr()
    options = ["--data", path, "--name", "r", "--resume", *SMALL, "--epochs", "7"]
    assert "epochs=1" in refused(capsys, "train", *options)
