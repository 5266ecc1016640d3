"""The output of rows, like that of `lakewriter query`."""

from typing import Any

from lakewriter.cli.terminal import ignore_broken_pipe, standard_output, terminal_width


def print_table(table: Any, *, as_json: bool) -> None:
    """Print rows like `lakewriter query`, as an aligned table or one JSON object per line.

    On a terminal the table fits its width.
    """
    from lakewriter.query.execution import RowStream
    from lakewriter.query.output.text import DisplayLimits
    from lakewriter.query.output.writers import write_answer

    width = None if as_json else terminal_width()
    if width is not None:
        from lakewriter.cli.table_fit import fitted_lines

        with ignore_broken_pipe(), standard_output() as out:
            for line in fitted_lines(table, width):
                out.write(line.encode() + b"\n")
        return
    answer = RowStream(table.schema, iter(table.to_batches()))
    with ignore_broken_pipe(), standard_output() as out:
        write_answer("ndjson" if as_json else "table", answer, out, DisplayLimits())
