"""Where a server listens: whether it can, before a model is loaded."""

import socket

from nmt_keras.errors import UserError


def require_free(host: str, port: int, flag: str = "--port") -> None:
    """Checks that a server can listen.

    Args:
        host: a name or address of this machine.
        port: 0 is a free one.
        flag: what gave the port, for the message.

    Raises:
        UserError: the port is taken, or the host is none of this machine.
    """
    if not host:
        raise UserError("--host must be a name or an address of this machine, or 0.0.0.0. Received: ''")
    try:
        with socket.socket(family_of(host), socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            trial.listen(1)  # two may be bound to a port, and one listens
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Cannot listen at {host}, port {port}: {reason}; give another {flag} or --host") from error


def family_of(host: str) -> socket.AddressFamily:
    """The family of addresses of a name or an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET
