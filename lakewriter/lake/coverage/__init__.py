"""Coverage: each expected candle is present, absent for a known reason, or unexplained.

`facts` reads the lake's facts about its series, and `expectation` computes the
expected candles. `days` counts them by day, and `absences` lists the absent ones with
their reasons. `tables` returns both as rows.
"""
