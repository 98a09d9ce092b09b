"""Errors as JSON problem documents (RFC 9457)."""

import math
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from thalweg.schemas.reasons import Reason, Unusable

PROBLEM_TYPE = "application/problem+json"
TOO_LARGE = (Reason.TOO_LARGE, Reason.TOO_MANY_CANDIDATES)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A problem document: `detail` is one line for people, `reason` one of those for dead letters."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    reason: str | None = None


class Reply(NamedTuple):
    """What is sent back: status, body, its type, and further headers."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class ProblemError(Exception):
    """A question that has no answer; `retry_after_s` where it may have one later."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        reason: Reason | None = None,
        retry_after_s: float | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Give the status, and one line that states what is wrong."""
        super().__init__(detail)
        self.status, self.detail, self.reason = status, detail, reason
        self.retry_after_s, self._headers = retry_after_s, headers

    @property
    def reply(self) -> Reply:
        """The problem as it is sent."""
        headers = self._headers
        if self.retry_after_s is not None:
            headers = (*headers, ("Retry-After", str(max(1, math.ceil(self.retry_after_s)))))
        problem = Problem(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            reason=None if self.reason is None else self.reason.value,
        )
        return Reply(self.status, msgspec.json.encode(problem), PROBLEM_TYPE, headers)


def unavailable(detail: str, retry_after_s: float = 1.0) -> ProblemError:
    """Return the problem of a question that may be asked again soon."""
    return ProblemError(503, detail, retry_after_s=retry_after_s)


def refused(unusable: Unusable) -> ProblemError:
    """Return the problem of a body that is no request that can be answered."""
    if unusable.reason is Reason.REQUEST_UNSUPPORTED:
        return ProblemError(501, unusable.detail, reason=unusable.reason)
    status = 413 if unusable.reason in TOO_LARGE else 400
    return ProblemError(status, unusable.detail, reason=unusable.reason)
