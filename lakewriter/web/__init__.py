"""The HTTP server of a running recorder, and of a lake without a recorder.

Entry points: `app` makes the application of some routes, and `server` listens.
`recorder_routes` has the routes of a recorder. Other parts of the package offer
functions that return routes, and the command line puts them together:

    app = make_app([*recorder_routes(…), *page_routes(…)])
    async with listening(app, bind(parse_address("127.0.0.1:9464"), "record --http")):
        …
"""
