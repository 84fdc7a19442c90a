"""Build the source distribution and from it the wheel, install that in an environment of its own, and use it there.

    python scripts/smoke_package.py                  beside the torch that this interpreter has; downloads nothing
    python scripts/smoke_package.py --torch 2.11.0   beside another torch, which pip installs with all that is needed

`make package` is the first. pip's own settings hold (PIP_INDEX_URL, PIP_FIND_LINKS), and --torch-index names an index
for torch alone, such as one of CPU-only builds. Ends with 1 and the output of what went wrong, or says where the two
files are.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
FILES = (
    "py.typed",
    "data/mnist5k.npz",
    "data/mnist5k.LICENSE.txt",
    "report/style.css",
    "report/explorer.js",
    "report/surface.js",
)
"""Beside the modules, what a wheel must hold."""

USE = """
import sys, torch, tightlip
home, files = sys.argv[1], sys.argv[2:]
package = __import__("pathlib").Path(tightlip.__file__).parent
assert package.is_relative_to(home), f"tightlip was imported from {package}, and not from {home}"
assert not [name for name in files if not (package / name).is_file()], "files are missing"
network = torch.nn.Sequential(torch.nn.Flatten(), tightlip.mlp([784, 16, 10]))
test = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0).test
loss = tightlip.margin_cross_entropy
tightlip.fit(network, loss, (test.images, test.labels), epochs=1, progress=False)
frozen = tightlip.freeze(network)
assert tightlip.lipschitz(frozen, p=2).constant <= 1
tightlip.save(frozen, "model.safetensors")
again = tightlip.certify(tightlip.load("model.safetensors"), test.images, test.labels, p=2)
print(f"tightlip {tightlip.__version__} with torch {torch.__version__}: {again.accuracy(0.1):.0%} certified at 0.1")
"""


class StepError(Exception):
    """A step that did not end well, and what it said."""


def run(*command: str | Path, folder: Path, say: bool = True) -> str:
    """What a command prints; nothing of this checkout or its environment is on its path."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    words = [str(part) for part in command]
    if say:
        print("  " + " ".join(Path(words[0]).name if place == 0 else word for place, word in enumerate(words))[:110])
    done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise StepError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """The source distribution of this checkout, and the wheel that it makes."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=ROOT)
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=unpacked)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


def install(wheel: Path, folder: Path, torch: str | None, index: str | None) -> Path:
    """An environment with the wheel in it; where its programs are."""
    run(sys.executable, "-m", "venv", folder / "env", folder=folder)
    programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    pip = (programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    if torch is None:  # what it needs is that of this interpreter; what *it* has installed is looked at first
        place = run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder)
        Path(place.strip(), "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        run(*pip, "--no-deps", wheel, folder=folder)
        return programs
    run(*pip, *(("--index-url", index) if index else ()), f"torch=={torch}", folder=folder)
    run(*pip, f"torch=={torch}", wheel, folder=folder)
    return programs


def use(programs: Path, folder: Path) -> None:
    """What a stranger does first."""
    python, command = programs / "python", programs / "tightlip"
    for caller in ((python, "-m", "tightlip"), (command,)):
        said = run(*caller, "--version", folder=folder).strip()
        if said != f"tightlip {VERSION}":
            raise StepError(f"--version says {said!r}, and pyproject.toml {VERSION}")
    if "circular" not in run(command, "list", folder=folder):
        raise StepError("tightlip list does not name the experiments")
    print(run(python, "-c", USE, folder / "env", *FILES, folder=folder, say=False).strip())
    options = ["--hidden", "16", "--epochs", "1", "--attack-images", "20", "--threads", "1", "--name", "first"]
    run(command, "train", *options, folder=folder)
    if not (folder / "runs" / "first" / "report.html").is_file():
        raise StepError("tightlip train wrote no page")


def main() -> None:
    """Build, install, use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="a version for pip to install, such as the oldest that pyproject.toml allows")
    parser.add_argument("--torch-index", help="an index for torch alone")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="where both files are put (default: dist)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        try:
            made = build(folder)
            use(install(made[1], folder, options.torch, options.torch_index), folder)
        except StepError as problem:
            raise SystemExit(f"This step failed: {problem}") from None
        options.output.mkdir(parents=True, exist_ok=True)
        for file in made:
            print(shutil.copy2(file, options.output / file.name))


if __name__ == "__main__":
    main()
