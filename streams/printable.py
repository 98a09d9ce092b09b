"""What others wrote, as a terminal may show it: nothing in it moves a cursor, colours, or turns text around."""

import re

_UNPRINTABLE = re.compile(r"[^\t\n -~]")
"""What is worth a look, character by character: most texts have nothing of it."""

_CREDENTIALS = re.compile(r"://[^\s\"]*@")  # keys may hold slashes: rather too much than too little
_USER = re.compile(r"(^|[\s,\"'(])[^\s,\"'@/(:]+:(?!//)[^\s,\"'@]+@(?=[\w\[])")  # user:password@host, without a scheme
_QUERY = re.compile(r"(://[^\s?\"]*)\?[^\s\"]*")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return a text with all escaped that is not printable: C0, DEL, C1, bidirectional marks, lone surrogates.

    The escapes are JSON's, so that a JSON text means what it meant. Tabs stay; with `lines` the ends of lines do too.

    >>> print(printable("ann\x1b[31m\x7f\x9b \u202eksa\n"))
    ann\u001b[31m\u007f\u009b \u202eksa\n
    """
    text = _UNPRINTABLE.sub(_escaped, text)
    return text if lines else text.replace("\n", "\\n")


def printable_bytes(data: bytes) -> bytes:
    """Return the same for lines of bytes, of which what is not UTF-8 is escaped too."""
    return printable(data.decode(errors="backslashreplace"), lines=True).encode()


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    if char.isprintable():
        return char
    if ord(char) < 1 << 16:
        return f"\\u{ord(char):04x}"
    high, low = divmod(ord(char) - 0x10000, 1 << 10)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def redacted(text: str) -> str:
    """Return a text with URLs in it as they may be shown: without users, passwords and queries.

    >>> redacted("s3://key:secret@bucket/folder?token=x")
    's3://***@bucket/folder?***'
    >>> redacted("kafka://ann:pw@one:9092,bob:pw@two:9092")
    'kafka://***@two:9092'
    >>> redacted("ann:pw@one:9092,two:9092")
    '***@one:9092,two:9092'
    """
    return _USER.sub(r"\1***@", _QUERY.sub(r"\1?***", _CREDENTIALS.sub("://***@", text)))
