"""The page `/ui`: ranks a user's candidates and shows why. It is whole by itself: no other address is asked."""

import base64
import hashlib
from importlib.resources import files

PAGE = files("thalweg.streams.serving").joinpath("ui.html").read_bytes()


def _hash_of(start: bytes, end: bytes) -> str:
    """Return the hash that allows an inline script or style by itself, of the part of the page between two marks."""
    inner = PAGE[PAGE.index(start) + len(start) : PAGE.index(end)]
    return f"'sha256-{base64.b64encode(hashlib.sha256(inner).digest()).decode()}'"


PAGE_HEADERS = (
    (
        "Content-Security-Policy",
        (
            f"default-src 'none'; script-src {_hash_of(b'<script>', b'</script>')}; "
            f"style-src {_hash_of(b'<style>', b'</style>')}; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    ("Referrer-Policy", "no-referrer"),
)
