"""TLS: what is wrong when a connection cannot be had because of it.

The driver reports most of it as if the server could not be reached, or as if the URL did not
parse. Its modes are those of libpq: `sslmode` and `sslrootcert` in the URL.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

__all__ = ["bad_setting", "is_refused", "refusal"]

_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_CHECKING: Final = ("verify-ca", "verify-full")
_FILES: Final = {  # and where the environment names them
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
}
_AUTHORITIES: Final = Path("~/.postgresql/root.crt")
_WRONG_HOST: Final = (62, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and IP_ADDRESS_MISMATCH
_TOO_OLD: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID and CERT_HAS_EXPIRED


def bad_setting(url: str) -> str | None:
    """Say which setting, in a URL or the environment, keeps TLS from being tried; `None`: none."""
    query = dict(parse_qsl(urlsplit(url).query))
    mode = query.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
    if mode not in _MODES:
        return f"sslmode is one of {', '.join(_MODES)}"
    for name, variable in _FILES.items():
        file = query.get(name) or os.environ.get(variable)
        if file and not (name == "sslrootcert" and file == "system") and not _can_read(Path(file)):
            return f"{name}={file} names no file that can be read"
    has_authorities = query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if mode in _CHECKING and not has_authorities and not _can_read(_AUTHORITIES.expanduser()):
        return (
            f"sslmode={mode} needs the certificate of the authority that the server's is from: "
            f"sslrootcert=/path/to/ca.pem, or {_AUTHORITIES}"
        )
    return None


def _can_read(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)


def is_refused(exc: BaseException | None) -> bool:
    """Whether this client does not trust the server, which trying again does not change."""
    return isinstance(exc, ssl.SSLCertVerificationError)


def refusal(exc: OSError) -> str | None:
    """Say what is wrong with TLS, as what follows the name of the server; `None`: something else.

    Args:
        exc: the driver's, of trying to connect.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        if exc.verify_code in _WRONG_HOST:
            return (
                "shows a certificate that is not for this host name: use the name that is in it, "
                "or sslmode=verify-ca, which does not ask for whom it is"
            )
        if exc.verify_code in _TOO_OLD:
            return "shows a certificate that is not valid today: renew it, or set this clock right"
        return (
            "shows a certificate of an authority that is not known here: name the authority's by "
            "sslrootcert=/path/to/ca.pem in the URL"
        )
    if isinstance(exc, ssl.SSLError):
        return f"does not agree to TLS as it is asked for ({exc.reason or type(exc).__name__})"
    if type(exc) is ConnectionError:  # the driver's own, and none of the system's
        return (
            "does not speak TLS, or hung up before that was settled: turn it on there (ssl = on), "
            "or leave sslmode=require away where the network is your own"
        )
    return None
