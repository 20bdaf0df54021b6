"""TLS to the broker, for nodes and clients alike."""

from __future__ import annotations

import ssl


def broker_tls(ca_path: str | None) -> ssl.SSLContext | None:
    """What a connection to the broker needs, also through a proxy; None: no TLS is wanted.

    ``ca_path``: the certificate (PEM) of the authority that signed the broker's. It signs nothing
    else, so whoever shows a certificate of it is the broker, under whatever address: links go
    through a proxy, and the proxy's name is not the broker's. Raises OSError.
    """
    if ca_path is None:
        return None
    context = ssl.create_default_context(cafile=ca_path)
    context.check_hostname = False
    return context
