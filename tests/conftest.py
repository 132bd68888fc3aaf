from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A shell starts background jobs with Ctrl-C ignored, and whatever they start inherits that. Some tests
    # interrupt programs on purpose.
    signal.signal(signal.SIGINT, signal.default_int_handler)
