"""Who may use the server: the token, and the addresses that need one."""

import base64
import hmac
import ipaddress
import os
from pathlib import Path

TOKEN_VARIABLE = "GTSVJ_SERVE_TOKEN"


def read_token(file: Path | None) -> str | None:
    """The token from a file, or else from the environment variable `GTSVJ_SERVE_TOKEN`, or None.

    Raises:
        ValueError: for one that is empty, or has characters that no header can carry.
    """
    text = os.environ.get(TOKEN_VARIABLE) if file is None else file.read_text()
    if text is None:
        return None
    token = text.strip()
    where = TOKEN_VARIABLE if file is None else str(file)
    if not token or not all("!" <= character <= "~" for character in token):
        raise ValueError(f"{where} must hold one token of printable ASCII without spaces")
    return token


def check_address(host: str, token: str | None) -> None:
    """Reject an address that other machines can reach if there is no token."""
    if token is None and not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from other machines, which needs a token: pass --token_file "
            f"FILE or set {TOKEN_VARIABLE}, or keep to 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only; names but `localhost` are not."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_authorised(header: str | None, token: str | None) -> bool:
    """Whether an `Authorization` header has the token, compared in constant time.

    `Bearer TOKEN`; or `Basic` with the token as the password, since trainers whose client sends no
    header of its own can have it in the URL (http://any:TOKEN@host:8000).
    """
    if token is None:
        return True
    scheme, _, value = (header or "").partition(" ")
    given = value.strip()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no text
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())
