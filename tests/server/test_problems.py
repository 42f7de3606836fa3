"""Errors on the wire: their status, their code, and what of them stays here."""

import json

import pytest

from heinfer.errors import BackendError, BusyError, HeinferError, SettingError
from heinfer_server.web.problems import problem_of


def test_a_full_service_says_when_to_come_back():
    answer = problem_of(BusyError("full"), "1")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    answer = problem_of(BusyError("full", retry_after=7), "1")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BackendError("SEAL failed to add"), 422, "backend-error"),
        (SettingError("of the operator"), 500, "internal-error"),
        (HeinferError("unforeseen"), 500, "internal-error"),
    ],
)
def test_errors_have_a_status_and_what_is_not_the_clients_stays_here(error, status, code):
    answer = problem_of(error, "1")
    body = json.loads(answer.body)
    assert (answer.status_code, body["code"]) == (status, code)
    assert (str(error) in body["detail"]) == (status != 500)
