"""Fixtures of several files."""

import httpx
import pytest
from in_process import RunningService


@pytest.fixture
def http(running: RunningService) -> httpx.Client:
    return running.http
