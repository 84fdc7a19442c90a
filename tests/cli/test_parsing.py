"""What cannot be parsed is one sentence in plain words, with the nearest name that is possible."""

import re

import pytest

from tightlip.cli import main
from tightlip.cli.main import COMMANDS
from tightlip.cli.parsing import options, parse


def refused(capsys, *command):
    assert main(list(command)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, err
    return err


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["trian"], "no command is called 'trian' (did you mean train?): choose one of train, tune, certify, "),
        (["Run"], "(did you mean run?)"),
        (["nonsense"], "no command is called 'nonsense': choose one of train, "),
        (["--data", "mnist5k"], "no command is called '--data'"),
        (["train", "--hiden", "16"], "tightlip train has no option --hiden (did you mean --hidden?); see"),
        (["train", "--batch_sise=3"], "tightlip train has no option --batch_sise (did you mean --batch-size?)"),
        (["train", "--nonsense"], "tightlip train has no option --nonsense; see tightlip train --help"),
        (["bench", "--width", "3"], "tightlip bench has no option --width (did you mean --widths?)"),
        (["list", "--verbose"], "tightlip list has no option --verbose"),
        (["run", "theorm-1"], "no experiment is called 'theorm-1' (did you mean theorem_1?): choose one of"),
        (["run", "folding", "--preset", "papr"], "--preset papr is not possible (did you mean paper?)"),
        (["train", "--data", "mnits"], "no data set is called 'mnits' (did you mean mnist?): choose one of"),
        (["train", "--activation", "maxmim"], "no activation is called 'maxmim' (did you mean maxmin?)"),
        (["train", "--norm", "3"], "--norm 3 is not possible: choose one of 2, inf; see"),
        (["train", "--epochs", "many"], "--epochs takes a whole number, not many; see"),
        (["train", "--seed=1.5"], "--seed takes a whole number, not 1.5"),
        (["train", "--k", "abc"], "--k takes a number, not abc"),
        (["train", "--eps"], "--eps takes a number; see"),
        (["train", "--eps", "36/0"], "--eps takes a number, not 36/0"),
        (["train", "--eps", "36/255/2"], "--eps takes a number, not 36/255/2"),
        (["train", "--eps", "a/b"], "--eps takes a number, not a/b"),
        (["train", "--epochs", "4/2"], "--epochs takes a whole number, not 4/2"),
        (["train", "--hidden", "16", "b"], "--hidden takes whole numbers, not 16 b"),
        (["train", "5"], "tightlip train does not know what to do with 5"),
        (["certify"], "tightlip certify needs a PATH: A model.safetensors written by"),
        (["report"], "'tightlip report' needs a folder"),
        (["help"], "no command is called 'help' (did you mean --help?): choose one of train, "),
        (["--verison"], "no command is called '--verison' (did you mean --version?)"),
        (["train", "-epochs", "3"], "tightlip train has no option -epochs (did you mean --epochs?)"),
        (["train", "-seed=3"], "tightlip train has no option -seed (did you mean --seed?)"),
        (["train", "epochs=3"], "tightlip train does not know what to do with epochs=3 (did you mean --epochs?)"),
        (["train", "--eps", "-1e-3"], "eps=-0.001 (--eps) is impossible"),
        (["train", "--name", "here/r"], "got 'here/r': give --runs here --name r"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_word_is_named_with_what_was_probably_meant(capsys, tmp_path, monkeypatch, command, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *command)
    assert files(tmp_path) == []


@pytest.mark.parametrize(("width", "name", "size"), [("15", "maxmin", 2), ("16 18", "groupsort4", 4)])
def test_a_width_that_the_activation_cannot_group_names_the_option(capsys, tmp_path, monkeypatch, width, name, size):
    monkeypatch.chdir(tmp_path)
    sentence = refused(capsys, "train", "--hidden", *width.split(), "--activation", name)
    assert f"hidden={width} (--hidden) does not suit activation={name}: " in sentence
    assert f"choose a width that is a multiple of {size}" in sentence and files(tmp_path) == []


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "nonsense"])
def test_experiments_refuse_what_they_would_not_use(capsys, tmp_path, monkeypatch, device):
    monkeypatch.chdir(tmp_path)
    sentence = refused(capsys, "run", "folding", "--device", device)
    assert f"--device {device} is not possible here: experiments compute on the processor" in sentence
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_flags_that_are_known_are_those_that_help_shows(capsys, name):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in options(COMMANDS[name]))
    assert {word.strip(",.") for word in shown.split() if word.startswith("--") and word[2:3].isalpha()} <= {
        *options(COMMANDS[name]),
        "--help",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_gives_each_default_once(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = " ".join(word for word in capsys.readouterr().out.split() if word not in "│╭╮╰╯")
    assert "(default: None)" not in shown and "(default: )" not in shown and "{None}" not in shown
    for entry in re.split(r" (?=--[a-z])", shown):
        assert len(re.findall(r"\(default: ", entry)) <= 1, entry


@pytest.mark.parametrize("words", [["--eps", "36/255"], ["--eps=36/255"], ["--eps", "3.6e1/255"]])
def test_numbers_may_be_fractions_and_places_stay_as_they_are(words):
    train = parse(["train", *words, "--data", "1/2", "--hidden", "8"], COMMANDS)
    assert (train.config.eps, train.config.data, train.config.hidden) == (36 / 255, "1/2", (8,))


def test_each_of_several_numbers_may_be_a_fraction():
    certify = parse(["certify", "a/b", "--eps", "1/255", "0.1", "--data", "3/4"], COMMANDS)
    assert (certify.eps, str(certify.model), certify.data) == ((1 / 255, 0.1), "a/b", "3/4")
