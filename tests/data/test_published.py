import gzip
from pathlib import Path

import pytest

from tightlip.data.published import cache_folder, unpack
from tightlip.errors import TightlipError


def test_the_platforms_cache_folder_is_used_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("TIGHTLIP_CACHE", raising=False)
    assert cache_folder().name == "tightlip"
    monkeypatch.setenv("TIGHTLIP_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gz"])
def test_unpack_tells_gzip_by_its_bytes_not_by_its_name(tmp_path, pack):
    path = tmp_path / "file"
    path.write_bytes(pack(b"content"))
    assert unpack(path, 7) == b"content"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gz"])
def test_unpack_stops_at_the_limit(tmp_path, pack):
    path = tmp_path / "file"
    path.write_bytes(pack(bytes(1_000_000)))
    with pytest.raises(TightlipError, match="more than the 999,999 bytes"):
        unpack(path, 999_999)


@pytest.mark.parametrize("end", [3, 12, 30, -9, -1])
def test_a_truncated_gzip_file_is_refused_wherever_it_ends(tmp_path, end):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(bytes(range(256)))[:end])
    with pytest.raises(TightlipError, match=r"cut.gz is truncated or damaged .*fetch it again"):
        unpack(path, 1000)


@pytest.mark.parametrize("position", [15, -5])
def test_a_damaged_gzip_file_is_refused(tmp_path, position):
    content = bytearray(gzip.compress(bytes(range(256))))
    content[position] ^= 0xFF
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(TightlipError, match=r"bad.gz is truncated or damaged"):
        unpack(path, 1000)


def test_a_path_that_cannot_be_read_is_a_sentence(tmp_path):
    with pytest.raises(TightlipError, match=r"absent cannot be read .No such file"):
        unpack(tmp_path / "absent", 1)
    with pytest.raises(TightlipError, match=r"cannot be read .Is a directory"):
        unpack(tmp_path, 1)
