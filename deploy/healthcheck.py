"""Health check of a container: /metrics or another page of a port says our name, or the exit status is 1."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def main() -> int:
    url = f"http://127.0.0.1:{int(sys.argv[1])}{sys.argv[2] if len(sys.argv) > 2 else '/metrics'}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return 0 if b"firstread_" in answer.read() else 1
    except (urllib.error.URLError, OSError) as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
