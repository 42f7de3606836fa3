"""Documents say what records of benchmarks say."""

import pytest
from recorded import TABLES, filled, records


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_its_record(name):
    document, _ = TABLES[name]
    assert document.read_text() == filled(name), "python tests/recorded.py writes it anew"


def test_no_label_was_wrong_without_a_mark():
    for record in records("range"):
        for what in ("modelled_wrong_unmarked", "encrypted_wrong_unmarked", "test_wrong_unmarked", "test_out_of_range"):
            assert record[what] == 0, (record["network"], what)
    (survive,) = records("survive")
    assert [survive[what] for what in ("wrong", "mixed_up", "lost", "untyped_errors")] == [0, 0, 0, 0]
