"""Which sets have members on which convolutions: the others are refused when a layer is constrained."""

import copy

import pytest
import torch
from conventions.carriers import CARRIERS, KERNELS
from conventions.cells import FORWARD, STEP, carried, refused

from tightlip import constrain
from tightlip.constraints import constraint_of
from tightlip.constraints.carrier import Carried
from tightlip.constraints.constraining import weight_constraint

TABLES = {"step": STEP, "forward": FORWARD}
IMPOSSIBLE = [
    (way, name, carrier)
    for way, table in TABLES.items()
    for name in table
    for carrier in CARRIERS
    if carrier in KERNELS and name in CARRIERS[carrier].refused
]


@pytest.mark.parametrize(("way", "name", "carrier"), IMPOSSIBLE)
def test_a_set_without_members_on_a_convolution_is_refused_in_a_sentence(way, name, carrier):
    layer = CARRIERS[carrier].first()
    before = copy.deepcopy(layer.state_dict())
    with refused("use |cannot be held by|pass hold="):
        constrain(layer, TABLES[way][name], way)
    assert constraint_of(layer) is None
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("each", list(carried()), ids=str)
def test_what_is_matrices_is_carried_and_a_kernel_has_a_set_of_its_own(each):
    layer = each.layer()
    matrices = isinstance(weight_constraint(layer), Carried)
    assert matrices == (each.shape not in KERNELS or each.constraint.norms != (2.0, 2.0))
    assert constraint_of(layer) is each.constraint


def test_there_is_a_cell_for_every_set_and_every_carrier():
    assert {(cell.way, cell.name) for cell in carried()} == {(way, name) for way in TABLES for name in TABLES[way]}
    assert {cell.shape for cell in carried()} == set(CARRIERS)
