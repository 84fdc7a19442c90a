"""`torch.distributed.checkpoint`: saved and loaded, flattened or not, a run goes on bit for bit."""

import pytest
import torch.distributed.checkpoint as dcp
from conventions.cells import same, train, values
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled", "ignore:.*TypedStorage is deprecated:UserWarning"
)


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_a_run_resumed_from_a_distributed_checkpoint_goes_on_bit_for_bit(cell, flat, tmp_path):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    network, optimizer = cell.held()
    train(network, optimizer, 3)
    model_state, optimizer_state = get_state_dict(network, optimizer, options=options)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=tmp_path)
    other, other_optimizer = cell.held(5)
    before = values(other)
    model_state, optimizer_state = get_state_dict(other, other_optimizer, options=options)
    for name, value in other.state_dict().items():
        if cell.constraint.projects:  # a step of no length moves nothing
            assert (value - before[name]).abs().max() <= 1e-5
    dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=tmp_path)
    set_state_dict(
        other, other_optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state, options=options
    )
    assert same(network, other)
    for each, each_optimizer in ((network, optimizer), (other, other_optimizer)):
        train(each, each_optimizer, min(cell.rounds, 8) + 2, seed=50)
        cell.assert_member(each)
    assert same(network, other)
