"""The scope of a request as an ASGI server makes it."""


def http_scope(path, query="", host="localhost", **headers):
    """Of a GET request. `headers`: their names with `_` in place of `-`."""
    given = {"host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
