"""The headless browser that tests open pages in: where it is, and how it is kept quiet."""

import shutil

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REASON = "no chromium or google-chrome on PATH"
QUIET = ("quic", "background-networking", "component-update", "sync", "default-apps", "extensions", "gpu")
FLAGS = [
    "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in QUIET),
    "--enable-logging=stderr", "--hide-scrollbars",
]  # fmt: skip
"""Without a sandbox, since tests may run as root; what pages complain of goes to stderr."""
