"""Which folders hold packages that are known by name."""

import os
import sysconfig

from tightlip.training.bytecode import INSTALLED, _folders


def test_a_folder_that_pip_has_filled_holds_known_packages_and_a_folder_of_ones_own_does_not(tmp_path):
    filled, own = tmp_path / "target", tmp_path / "project"  # as `pip install --target` on PYTHONPATH, and a checkout
    (filled / "torch-2.13.0.dist-info").mkdir(parents=True)
    own.mkdir()
    found = _folders(["", str(filled), str(own), str(tmp_path / "absent")])
    assert f"{filled}{os.sep}" in found
    assert not any(str(own).startswith(folder.rstrip(os.sep)) for folder in found)
    assert f"{sysconfig.get_path('purelib')}{os.sep}" in INSTALLED
