"""Coverage: each expected candle is present, or has a reason for its absence, or is unexplained.

`facts` reads what the lake has of its series, `expectation` computes the expected
candles, `days` counts them by day, `absences` lists the absent ones with their
reasons, and `tables` returns both as rows.
"""
