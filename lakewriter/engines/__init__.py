"""Engines run one function over many items: in processes of this host, or on a Spark cluster.

`engine` has the interface, `local` and `spark` the two engines. An engine knows nothing of
lakes. A command gives it a function of this package and a stream of items.
"""
