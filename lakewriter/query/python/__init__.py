"""The Python interface: statements, candles and matrices as frames.

    candle_request (names, range) ─► series_rows (files) ─► frames | matrix

`reader` has the class Lake, and `result` the answer to a statement. `series_list` lists
the series. Entry point: `reader`.
"""
