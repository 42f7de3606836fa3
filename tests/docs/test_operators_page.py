"""The page of operators is that of the tables."""

from operators_page import PAGE, page


def test_the_page_says_what_the_tables_say() -> None:
    assert PAGE.read_text() == page(), "python tests/support/operators_page.py writes it anew"
