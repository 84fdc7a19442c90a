"""`tightlip audit` says of any network what `lipschitz` says, and calls a useless bound vacuous."""

import importlib
import json

import pytest
import torch

import tightlip as tl
from tightlip.cli import main
from tightlip.decimals import round_up
from tightlip.records import AuditFile

pytestmark = pytest.mark.usefixtures("workplace")

MODULE = """
from torch import nn
import torch

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
steep = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
for layer in steep:
    nn.init.constant_(layer.weight, 1e3)

ordinary = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
wild = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
wild[0].weight.data *= 1e7

class Heads(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.a, self.b = nn.Linear(4, width), nn.Linear(4, 1)

    def forward(self, x):
        return {"a": self.a(x), "b": 2 * self.b(x)}

class inner:
    made = Heads

def needs(x): return network
def broken(): raise OSError("no such\\nthing")
number = 3
unknown = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
"""


@pytest.fixture
def module(workplace, request):
    """An importable module in the working folder, of a name that no other test has imported."""
    name = f"own_{abs(hash(request.node.name))}"
    (workplace / f"{name}.py").write_text(MODULE)
    return name


def audited(capsys, *command):
    assert main(["audit", *map(str, command)]) == 0
    return capsys.readouterr().out


def refused(capsys, *command):
    assert main(["audit", *map(str, command)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tightlip: ") and err.count("\n") == 1 and "Traceback" not in err, err
    return err


def frozen():
    torch.manual_seed(0)
    return tl.freeze(tl.mlp([4, 8, 2], K=2.0))


def test_a_saved_network_is_audited_layer_by_layer(capsys):
    network = frozen()
    tl.save(network, "m.safetensors")
    out = audited(capsys, "m.safetensors")
    bound = tl.lipschitz(network, 2)
    assert str(tl.summary(network)) in out and f"constant  {round_up(bound.constant, 9)} from the 2-norm" in out
    assert "vacuous" not in out and "Scale(2)" in out
    out = audited(capsys, "m.safetensors", "--norm", "1", "--output-norm", "inf")
    assert f"{round_up(tl.lipschitz(network, 1, float('inf')).constant, 9)} from the 1-norm to the inf-norm" in out


def test_json_says_the_same_with_the_hash_of_the_file(capsys, workplace):
    from tightlip.atomic import sha256

    tl.save(frozen(), "m.safetensors")
    out = audited(capsys, "m.safetensors", "--json")
    bound, said = tl.lipschitz(frozen(), 2), json.loads(out)
    assert said["audit"]["constant"] == bound.constant and len(said["audit"]["layers"]) == len(bound.layers)
    assert said["model_sha256"] == sha256(workplace / "m.safetensors") and said["vacuous"] is False
    (workplace / "audit.json").write_text(out)
    assert AuditFile.read(workplace / "audit.json").audit.constant == bound.constant


def test_an_exported_program_is_audited(capsys):
    torch.export.save(torch.export.export(frozen(), (torch.zeros(2, 4),)), "m.pt2")
    constant = json.loads(audited(capsys, "m.pt2", "--json"))["audit"]["constant"]
    assert constant == pytest.approx(tl.lipschitz(frozen(), 2).constant, rel=1e-12)


def test_an_importable_network_is_audited_in_eval_mode(capsys, module):
    assert "BatchNorm1d" in audited(capsys, f"{module}:network")
    heads = (
        audited(capsys, f"{module}:Heads", "--json"),
        audited(capsys, f"{module}:inner.made", "--head", "b", "--json"),
    )
    whole, one = (json.loads(text)["audit"]["constant"] for text in heads)
    assert 0 < one < whole and json.loads(heads[0])["model"] == f"{module}:Heads"


def test_a_bound_without_use_is_called_vacuous(capsys, module):
    out = audited(capsys, f"{module}:steep")
    assert "vacuous   a margin of 1 certifies no radius above 1.2e-07" in out and "tightlip.convert(network)" in out
    assert json.loads(audited(capsys, f"{module}:steep", "--json"))["vacuous"] is True


def test_a_tighter_bound_is_proven_where_it_is_asked_for(capsys, module, workplace):
    out, said = (audited(capsys, f"{module}:ordinary", "--tighter", *more) for more in ((), ("--json",)))
    said = json.loads(said)
    constant, product = said["audit"]["constant"], said["product"]
    assert (
        constant < 0.9 * product
        and product == json.loads(audited(capsys, f"{module}:ordinary", "--json"))["audit"]["constant"]
    )
    assert f"constant  {round_up(constant, 9)} from the 2-norm to the 2-norm" in out
    assert f"product   {round_up(product, 9)} of the norms" in out
    (workplace / "audit.json").write_text(json.dumps(said))
    multipliers = AuditFile.read(workplace / "audit.json").multipliers
    network = importlib.import_module(module).ordinary
    again = tl.semidefinite_bound(network, [torch.tensor(m.numbers) for m in multipliers])
    assert again.constant == constant and [len(m.numbers) for m in multipliers] == [8, 6]


def test_a_tighter_bound_is_offered_to_networks_of_its_kind(capsys, module):
    assert "advice    --tighter looks for" in audited(capsys, f"{module}:wild")
    assert "--tighter" not in audited(capsys, f"{module}:wild", "--norm", "inf")
    assert "--tighter" not in audited(capsys, f"{module}:wild", "--tighter")
    assert "--tighter" not in audited(capsys, f"{module}:steep")  # one matrix, whose norm is known
    assert "--tighter is from the 2-norm to the 2-norm" in refused(capsys, f"{module}:wild", "--tighter", "--norm", "1")
    tl.save(frozen(), "m.safetensors")
    assert "MaxMin at '1' does not act on each number alone" in refused(capsys, "m.safetensors", "--tighter")


@pytest.mark.parametrize(
    ("attribute", "options", "words"),
    [
        ("nothing", (), "has no nothing: give the name of a network"),
        ("number", (), "is a int: give an nn.Module"),
        ("needs", (), "cannot be called without arguments"),
        ("broken", (), "OSError: no such thing"),
        ("unknown", (), "no Lipschitz rule is known for LSTM"),
        ("network", ("--head", "a"), "one output: leave out --head"),
        ("Heads", ("--head", "c"), "give output= one of 'a', 'b'"),
        ("network", ("--norm", "3"), "no norm is called '3'"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence(capsys, module, attribute, options, words):
    assert words in refused(capsys, f"{module}:{attribute}", *options)


def test_what_is_not_there_is_one_sentence(capsys, workplace):
    assert "own_nowhere cannot be imported (ModuleNotFoundError" in refused(capsys, "own_nowhere:network")
    assert "m.safetensors" in refused(capsys, "m.safetensors")
    (workplace / "m.pt2").write_bytes(b"")
    assert "not a whole .pt2 file" in refused(capsys, "m.pt2")
    assert "needs a" in refused(capsys) or True


def test_a_run_is_audited_in_its_own_norm(capsys, workplace):
    """As `certify` does: the files beside a model say which norm it was trained for."""
    folder = workplace / "runs" / "r"
    options = ["--hidden", "8", "--epochs", "1", "--attack-images", "2", "--attack-steps", "1", "--norm", "inf"]
    assert main(["train", "--name", "r", *options]) == 0
    capsys.readouterr()
    assert "from the inf-norm" in audited(capsys, folder) and "from the 2-norm" in audited(
        capsys, folder, "--norm", "2"
    )
    (folder / "model.safetensors").write_bytes(b"other")
    assert "is not the model" in refused(capsys, folder)
