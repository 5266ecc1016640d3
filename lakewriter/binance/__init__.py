"""The access to the exchange: the wire format, the socket, REST, and the public archive.

Only this package opens connections to the exchange, and only `wire` knows the
exchange's field names.
"""
