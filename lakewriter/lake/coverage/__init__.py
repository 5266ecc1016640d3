"""Complete or explained: each candle that is expected is there, or something says why not.

`facts` reads what the lake knows of its series, `expectation` says which candles
follow from that, `days` counts them by day, `absences` lists the absent ones
with their reasons, and `tables` makes rows of both.
"""
