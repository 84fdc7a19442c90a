import struct

import pytest
import torch

from tightlip.data.idx import parse
from tightlip.errors import TightlipError


def idx(shape, content, element=0x08):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, element, len(shape), *shape) + bytes(content)


@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 2, 1), (0, 4)])
def test_parse_returns_the_elements_in_the_shape_of_the_header(shape):
    count = torch.Size(shape).numel()
    tensor = parse(idx(shape, range(count)), "made")
    assert tensor.shape == shape
    assert tensor.dtype == torch.uint8
    assert tensor.flatten().tolist() == list(range(count))


def test_dimensions_are_big_endian():
    assert parse(idx((1, 258), bytes(258)), "made").shape == (1, 258)


def test_the_tensor_owns_its_memory():
    content = idx((2,), [1, 2])
    parse(content, "made")[0] = 9
    assert content[-2:] == bytes([1, 2])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"PK\x03\x04 and more", "not an IDX file .it starts with 50 4b 03 04"),
        (idx((1,), [0, 0, 0, 0], element=0x0D), "type 0x0d"),
        (idx((), []), "ends inside its IDX header of 0 dimensions"),
        (idx((2, 2), [])[:-1], "ends inside its IDX header of 2 dimensions"),
        (idx((2, 2), [1, 2, 3]), r"\(2, 2\) uint8 elements, 4 bytes, but 3 follow"),
        (idx((2, 2), [1, 2, 3, 4, 5]), "4 bytes, but 5 follow"),
        (idx((2**32 - 1,) * 4, [1]), "but 1 follow"),
    ],
)
def test_parse_refuses_with_a_sentence_that_names_the_file(content, says):
    with pytest.raises(TightlipError, match=f"^the-file .*{says}"):
        parse(content, "the-file")
