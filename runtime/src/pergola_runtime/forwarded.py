"""The application of PERGOLA_APPLICATION, with the client's address: `pergola_runtime.forwarded:application`

For servers that do not read X-Forwarded-For themselves, or not on a unix socket, where Django would have no
REMOTE_ADDR. Every proxy is believed, as nginx alone reaches the socket, and sets those headers anew.
"""

import os

from uvicorn.importer import import_from_string
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from pergola_runtime.metadata import named

application = ProxyHeadersMiddleware(
    named(import_from_string(os.environ["PERGOLA_APPLICATION"])), trusted_hosts="*"
)
