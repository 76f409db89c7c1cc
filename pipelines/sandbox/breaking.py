"""Ways to break a connection on purpose."""

import socket
import struct

from aiohttp import web


def reset(request: web.BaseRequest) -> None:
    """Reset the connection before any reply."""
    transport = request.transport
    if transport is None:
        return
    # With a linger time of zero, closing sends RST instead of FIN.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def close_inside(request: web.BaseRequest, raw: bytes = b"") -> None:
    """Send these bytes as they are, then close the connection in an orderly way, inside the body."""
    transport = request.transport
    if transport is None:
        return
    transport.write(raw)
    transport.close()
