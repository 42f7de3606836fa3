"""Fixtures of several files; that this one is here puts this folder on the import path, also for the tests below it."""

import httpx
import pytest
from in_process import RunningService


@pytest.fixture
def http(running: RunningService) -> httpx.Client:
    return running.http
