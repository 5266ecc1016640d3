"""The checks of `lakewriter doctor`: the machine, the lake and the exchange's endpoints."""
