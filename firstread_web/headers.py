"""Headers of every answer, and requests that are turned away before anything looks at them."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from firstread.settings import Settings
from firstread.settings.checks import is_local
from firstread_web.door import TOO_MANY_REQUESTS, Door

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing inline, nothing from elsewhere (Content Security Policy Level 3)."""

SECURITY_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

MAX_BODY_BYTES = 64 * 1024
RETRY_S = 5


class Guard:
    """Sets the headers of every answer; refuses other hosts, posts from other pages, and what is too long or too much.

    A client that goes away before its request is complete is no error.
    """

    def __init__(self, app: ASGIApp, settings: Settings, door: Door) -> None:
        self._app = app
        self._door = door
        self._in_hand = 0
        self._public = urlsplit(settings.web_url).hostname or ""
        self._local_only = is_local(settings.web_host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            status, text = refusal
            await PlainTextResponse(f"{text}\n", status)(scope, receive, with_headers)
            return
        if self._in_hand >= self._door.limits.requests:
            self._door.turned_away.note(TOO_MANY_REQUESTS)
            busy = PlainTextResponse("too many requests at once\n", 503, {"Retry-After": str(RETRY_S)})
            await busy(scope, receive, with_headers)
            return
        self._in_hand += 1
        try:
            await self._app(scope, receive, with_headers)
        except ClientDisconnect:
            return
        finally:
            self._in_hand -= 1

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        if not self._knows(host_of(headers.get("host", ""))):
            return 421, "no page of that host here"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "GET, HEAD or POST"
        if method == "POST":
            if not is_from_here(headers):
                return 403, "posted from another page"
            if not headers.get("content-length", "0").isdigit() or "transfer-encoding" in headers:
                return 411, "a length is needed"
            if int(headers.get("content-length", "0")) > MAX_BODY_BYTES:
                return 413, "too long"
        return None

    def _knows(self, host: str) -> bool:
        """Whether a Host is ours: a name that an attacker points at this machine is not."""
        if is_local(host) or (self._public and host == self._public.lower()):
            return True
        return not self._local_only and not self._public and bool(host)


def host_of(header: str) -> str:
    """The name in a Host header, without port and brackets, in lower case; empty where it is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def is_from_here(headers: Headers) -> bool:
    """Whether nothing says that a request comes from a page that is not ours.

    Browsers send the Origin ``null`` with forms of pages whose referrer policy is ``no-referrer``, as of ours (Fetch
    standard, 3.2), and Sec-Fetch-Site only to addresses that they trust; so each post carries its session's token too.
    """
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None or origin == "null":
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False
