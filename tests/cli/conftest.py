import pytest
import torch


def pytest_configure(config):
    config.addinivalue_line("markers", "drawn: figures of pages are drawn, as in the pages that it compares with")


@pytest.fixture(autouse=True)
def _undrawn(request):
    if request.node.get_closest_marker("drawn") is None:
        request.getfixturevalue("undrawn")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working folder, no data root, and the threads as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIGHTLIP_DATA", raising=False)
    monkeypatch.setenv("TIGHTLIP_CACHE", str(tmp_path / ".cache"))
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
