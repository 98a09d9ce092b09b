"""Who may ask a worker: its token, and the URL that its group knows it by."""

import re
import socket
from pathlib import Path

from thalweg.streams.configuration.loading import HttpSection
from thalweg.streams.refusal import Refusal
from thalweg.streams.serving.service import LOOPBACK
from thalweg.streams.warnings import warn_of_readers

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,1024}=*")
EVERYWHERE = ("", "0.0.0.0", "::")


def token_of(section: HttpSection) -> str:
    """Return the token of a section, empty where none is asked for.

    Raises Refusal where its file can't be read, it is too short, or others than this machine could ask without one.
    """
    if not section.token_file:
        if LOOPBACK.fullmatch(section.host):
            return ""
        raise Refusal(
            f"http.host = {section.host!r} can be reached from other machines: set http.token_file to the file of a "
            "token, such as `openssl rand -hex 32` gives"
        )
    warn_of_readers("http.token_file", section.token_file)
    try:
        token = Path(section.token_file).read_text("ascii").strip()
    except OSError as error:
        raise Refusal(f"http.token_file can't be read: {error.strerror}: {section.token_file}") from None
    except UnicodeDecodeError:
        token = ""
    if not TOKEN.fullmatch(token):
        raise Refusal(f"{section.token_file} (http.token_file) holds no token: at least 16 of A-Z a-z 0-9 - . _ ~ + /")
    return token


def url_of(section: HttpSection, port: int) -> str:
    """Return the URL by which other workers reach a server that listens on a port.

    >>> url_of(HttpSection(), 9465), url_of(HttpSection(host="::1"), 9465)
    ('http://127.0.0.1:9465', 'http://[::1]:9465')
    """
    if section.advertised_url:
        return section.advertised_url.rstrip("/")
    host = socket.gethostname() if section.host in EVERYWHERE else section.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
