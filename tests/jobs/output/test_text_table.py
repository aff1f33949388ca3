"""Tables as text: what lines up with what."""

from __future__ import annotations

import os

from pipemill.jobs.output.text_table import TextTable, format_number, join_blocks, make_fact_table
from rich.console import Console


def test_columns_line_up_and_no_line_ends_in_spaces():
    table = TextTable(
        header=("name", "rows", "input"),
        rows=[("a", "1", "x"), ("longest", "1,000", ""), ("b", "20", "a long one")],
        right=frozenset({1}),
    )
    assert str(table).split("\n") == [
        "name      rows  input",
        "a            1  x",
        "longest  1,000",
        "b           20  a long one",
    ]


def test_facts_start_at_the_same_column_and_longer_names_keep_their_distance():
    assert (
        str(make_fact_table([("rows", "3"), ("", "more")])) == "rows          3\n              more"
    )
    assert str(make_fact_table([("a much longer name", "3"), ("b", "4")])) == (
        "a much longer name  3\nb                   4"
    )


def test_an_indented_table_and_text_are_joined_by_lines():
    assert join_blocks(["row 0", TextTable(rows=[("a", "1")], indent=2)]) == "row 0\n  a  1"


def test_a_table_without_rows_is_its_header_or_nothing():
    assert str(TextTable(rows=[])) == ""
    assert str(TextTable(rows=[], header=("a", "b"))) == "a  b"


def test_numbers_have_three_digits_and_no_exponent():
    shown = [format_number(value) for value in (0.01234, 7.5, 99.4, 2680, 15_000_000)]
    assert shown == ["0.0123", "7.5", "99.4", "2,680", "15,000,000"]


def test_what_a_terminal_obeys_is_shown():
    """Rows, the names of files and errors hold it; ESC [ 2 J would clear the screen."""
    clear = "\x1b[2J\x07\x9b1m"
    shown = r"\x1b[2J\x07\x9b1m"
    table = TextTable(header=(clear, "b"), rows=[(clear, "é"), ("c", "d")])
    assert str(table).split("\n")[1] == f"{shown}  é"
    assert join_blocks([f"a{clear}\nb", table]).startswith(f"a{shown}\nb\n{shown}")
    with open(os.devnull, "w") as file:
        console = Console(file=file, record=True, width=80)
        console.print(TextTable(rows=[(clear, "b")]))
    assert shown in console.export_text()
