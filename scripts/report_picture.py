"""Draw README's picture of a page, docs/images/report.png, from the committed run that README's table shows.

python scripts/report_picture.py        needs chromium or google-chrome on the path

The picture carries the hash of what the run's two files hold; tests/test_results.py compares it with the run there.
"""

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tightlip.report import write
from tightlip.report.runs import read_run

ROOT = Path(__file__).parents[1]
RUN = ROOT / "results" / "mnist5k-l2-seed0"
PICTURE = ROOT / "docs" / "images" / "report.png"
SIZE = (1160, 1560)
STAMP = "tightlip run"


def stamp(run: Path = RUN) -> str:
    """The hash of all that a page is made from."""
    found = read_run(run)
    content = json.dumps([found.row.to_json(), found.proof.to_json()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def main() -> None:
    """Render, photograph, stamp."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no chromium or google-chrome on the path: install one to draw the picture")
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "report.html"), Path(folder, "shot.png")
        write([RUN], page)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"]
        size = ",".join(map(str, SIZE))
        command = [browser, *flags, f"--window-size={size}", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        info = PngInfo()
        info.add_text(STAMP, stamp())
        with Image.open(shot) as image:
            image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(PICTURE, pnginfo=info, optimize=True)


if __name__ == "__main__":
    main()
