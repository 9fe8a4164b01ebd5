"""Tables on a terminal."""

from mammojax.evaluate import text_table


def test_a_long_status_stands_below_the_table() -> None:
    long = f"run on phantom ({', '.join(f'field {k}' for k in range(20))})"
    text = text_table.table_with_notes(("row", "status"), [["a", long], ["b", "run"], ["c", long]])
    table, _, note = text.partition("\n\n")
    assert table.splitlines()[1:] == ["a    run on phantom [1]", "b    run", "c    run on phantom [1]"]
    assert " ".join(note.split()) == f"[1] {long}"
