"""The sandbox over HTTP: REST calls, the public archive, and the control endpoint.

Entry points: `rest_http`, `archive_http` and `control`, one for each kind of request.
"""
