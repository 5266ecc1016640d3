"""Pictures of candles and of coverage, as text for a terminal or as PNG and SVG.

    bars ─► terminal_chart, plotted_chart        candles of one series, with its gaps
    heat ─► terminal_heatmap, plotted_heatmap    coverage of many series, by time

`bars` and `heat` read the lake. The others only draw, and print nothing. matplotlib is
an optional dependency of the plotted pictures.
"""
