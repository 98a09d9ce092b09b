"""What compiled code is refused with; apart, so that naming it loads no compiler."""


class CacheError(Exception):
    """The cache of compiled code must not be trusted; the message says why and what to do."""
