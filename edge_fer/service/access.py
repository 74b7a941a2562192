"""Who may see the page: names of the host, the token, and the cookie that a browser gets for it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import platform
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from edge_fer.address import listening_at
from edge_fer.config import WebSettings
from edge_fer.credentials import secret_file
from edge_fer.errors import ConfigError, UsageError

COOKIE = "edge-fer"
SESSION_S = 30 * 24 * 3600
"""How long a browser stays logged in."""
LEAST_TOKEN = 16
"""Letters of a token, at least."""
_TRIES, _TRIES_S = 10, 60.0
_MOST_PEERS = 10_000


def read_token(settings: WebSettings) -> str:
    """The token in its file, without blanks around it, or of systemd's credential; "" where there is neither.

    Raises:
        ConfigError: it cannot be read, or is too short to guard anything.
    """
    path = secret_file("web.token_file", settings.token_file)
    if not path:
        return ""
    try:
        token = Path(path).read_text(encoding="utf-8")[:1000].strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"Cannot read the token for the web page in {path}: {why}.") from None
    if len(token) < LEAST_TOKEN or not token.isascii():
        raise ConfigError(
            f"The token in {path} is too easy to guess: it needs at least {LEAST_TOKEN} letters and digits. "
            f"Make one with `openssl rand -hex 24 > {path}`."
        )
    return token


def read_certificate(settings: WebSettings) -> ssl.SSLContext | None:
    """What the certificate of the settings needs; None without one.

    Raises:
        ConfigError: certificate or key are not what they should be.
    """
    if not settings.cert_file:
        if settings.key_file:
            raise ConfigError("web.key_file is the key of a certificate: set web.cert_file too.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def no_pass_phrase() -> str:
        raise ConfigError(f"The key of {settings.cert_file} has a pass phrase. Give one without.")

    certificate = secret_file("web.cert_file", settings.cert_file)
    key = secret_file("web.key_file", settings.key_file) if settings.key_file else None
    try:
        context.load_cert_chain(certificate, key, no_pass_phrase)
    except ssl.SSLError:
        raise ConfigError(
            f"{settings.cert_file} and its key are no certificate in PEM that fit together. Set web.cert_file and "
            "web.key_file to what your certificate authority gave you."
        ) from None
    except OSError as error:
        name = error.filename or settings.cert_file
        raise ConfigError(f"Cannot read the certificate {name} or its key: {error.strerror}.") from None
    return context


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, as it calls itself; no for one that is not known."""
    try:
        return ipaddress.ip_address(socket.getaddrinfo(host, None)[0][4][0]).is_loopback
    except (OSError, UnicodeError):
        return False


def without_token(where: str) -> UsageError:
    """Why the page does not listen where others reach it: there is no token."""
    _, port = listening_at(where)
    return UsageError(
        f"web:{where} can be reached from the network, and no token guards it. Write one into a file "
        "(`openssl rand -hex 24 > token`) and set web.token_file or --web-token-file, or listen at "
        f"web:127.0.0.1:{port}."
    )


class Access:
    """Decides by host name, token and cookie.

    Args:
        token: what a client must know; "" lets everybody in.
        names: further names that clients may call this machine.
        secure: the page is served by TLS alone, and so is the cookie.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        token: str = "",
        names: Collection[str] = (),
        *,
        secure: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._token = token
        node = platform.node().lower()
        self._names = {"localhost", node, f"{node}.local", *(name.lower().rstrip(".") for name in names)} - {""}
        self._secure = secure
        self._clock = clock
        self._tries: dict[str, int] = {}
        self._tries_s = 0.0

    @property
    def is_guarded(self) -> bool:
        """Whether a token is needed."""
        return bool(self._token)

    def knows_host(self, host: str) -> bool:
        """Whether a ``Host`` header names this machine: by an address, or by a name that it has.

        Any other name comes from a page elsewhere whose name was made to lead here (DNS rebinding).
        """
        name = host.strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") <= 1:
            name = name.partition(":")[0]
        if name.rstrip(".") in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def is_from_here(self, headers: Mapping[str, str]) -> bool:
        """Whether a request that changes something was made by our own page, or by no page at all."""
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return False
        origin = headers.get("origin")
        return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()

    def allows(self, headers: Mapping[str, str], peer: str) -> bool:
        """Whether a request brings the token, or the cookie for it."""
        if not self._token:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.is_token(given.strip(), peer)
        cookies = (one.strip().partition("=") for one in headers.get("cookie", "").split(";")[:50])
        return any(name == COOKIE and self._is_session(value) for name, _, value in cookies)

    def is_token(self, given: str, peer: str) -> bool:
        """Compare in constant time. Of each address a few wrong ones a minute are heard; then none is right."""
        now_s = self._clock()
        if not 0 <= now_s - self._tries_s < _TRIES_S:
            self._tries, self._tries_s = {}, now_s
        right = hmac.compare_digest(given.encode(errors="replace"), self._token.encode())
        tries = self._tries.get(peer, 0)
        if tries >= _TRIES:
            return False
        if not right and len(self._tries) < _MOST_PEERS:
            self._tries[peer] = tries + 1
        return right

    def cookie(self) -> str:
        """The ``Set-Cookie`` of a browser that has brought the token."""
        expires = str(int(self._clock() + SESSION_S))
        return self._set_cookie(f"{expires}.{self._sign(expires)}", SESSION_S)

    def no_cookie(self) -> str:
        """The one of a browser that leaves."""
        return self._set_cookie("", 0)

    def _set_cookie(self, value: str, age_s: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{COOKIE}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}"

    def _is_session(self, value: str) -> bool:
        expires, _, signature = value.partition(".")
        good = hmac.compare_digest(signature.encode(errors="replace"), self._sign(expires).encode())
        return good and expires.isdecimal() and int(expires) > self._clock()

    def _sign(self, expires: str) -> str:
        """Whoever has the token can make it, and nobody else; another token ends all sessions."""
        text = f"edge-fer session until {expires}"
        return hmac.new(self._token.encode(), text.encode(errors="replace"), hashlib.sha256).hexdigest()
