"""The sandbox over HTTP: REST calls, the public archive, and its own control endpoint.

Doors: `rest_http`, `archive_http` and `control`, one for each kind of request.
"""
