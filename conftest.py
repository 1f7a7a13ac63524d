"""For all tests, benchmarks and docstrings: what they tune is not the user's, nor is what the user tuned theirs."""

import os
import tempfile


def pytest_configure(config):
    """Give this run a folder of its own for what `npconv.tune` keeps; processes that tests start have it, too."""
    folder = tempfile.TemporaryDirectory(prefix="npconv-")
    os.environ["NPCONV_CACHE_DIR"] = folder.name
    config.add_cleanup(folder.cleanup)
