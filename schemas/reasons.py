"""Why a record cannot be used: a closed list whose names and codes never change."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a record was dead-lettered; the value is the name on the wire, `code` the number inside the compiled fold.

    Names and codes are part of the format: append, never renumber, never reuse. Code 0 is left free for "no reason".

    >>> Reason.TOO_DEEP.value, Reason.TOO_DEEP.code, Reason.of_code(5) is Reason.TOO_DEEP, Reason("too_deep").code
    ('too_deep', 5, True, 5)
    """

    code: int

    # What the bytes alone show.
    EMPTY = "empty", 1
    TOO_LARGE = "too_large", 2
    NOT_UTF8 = "not_utf8", 3
    NOT_JSON = "not_json", 4
    TOO_DEEP = "too_deep", 5
    LONE_SURROGATE = "lone_surrogate", 6
    DUPLICATE_KEY = "duplicate_key", 7
    NOT_AN_OBJECT = "not_an_object", 8
    UNKNOWN_TYPE = "unknown_type", 9
    MISSING_FIELD = "missing_field", 10
    WRONG_TYPE = "wrong_type", 11
    NOT_FINITE = "not_finite", 12
    INTEGER_OUT_OF_RANGE = "integer_out_of_range", 13
    ID_EMPTY = "id_empty", 14
    ID_TOO_LONG = "id_too_long", 15
    NAME_EMPTY = "name_empty", 16
    NAME_TOO_LONG = "name_too_long", 17
    TOO_MANY_CONTEXT_FIELDS = "too_many_context_fields", 18
    VALUE_TOO_LONG = "value_too_long", 19
    LIST_TOO_LONG = "list_too_long", 20
    TOO_MANY_CANDIDATES = "too_many_candidates", 21
    BAD_BASE_SCORE = "bad_base_score", 22
    TIME_OUT_OF_RANGE = "time_out_of_range", 23
    # What only the partition and its state show.
    WRONG_PARTITION = "wrong_partition", 24
    TIME_JUMP = "time_jump", 25  # of earlier versions: no record is refused for it any more
    USER_MISMATCH = "user_mismatch", 26
    REQUEST_UNSUPPORTED = "request_unsupported", 27
    TOO_MANY_VALUES = "too_many_values", 28
    TOO_MANY_FEEDBACKS = "too_many_feedbacks", 29
    NO_ROOM = "no_room", 30
    NOT_AVRO = "not_avro", 31
    BAD_OPTION = "bad_option", 32
    UNKNOWN_SOURCE = "unknown_source", 33
    BAD_VALUE = "bad_value", 34

    def __new__(cls, value: str, code: int) -> "Reason":
        """Make a member that is its wire name and carries its code."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.code = code
        return member

    @classmethod
    def of_code(cls, code: int) -> "Reason":
        """Return the reason with this code.

        Raises ValueError where no reason has it.
        """
        try:
            return _BY_CODE[code]
        except KeyError:
            raise ValueError(f"no reason has the code {code}") from None


_BY_CODE = {reason.code: reason for reason in Reason}


class Unusable(Exception):  # noqa: N818  (a property of the record, not a fault of the program)
    """A record that cannot be used; it goes to the dead letters with `reason` and `detail`.

    `detail` is one short line of ASCII, a function of the record and the limits alone.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        """Keep the reason and one line for the person who reads dead letters."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        """Return `reason: detail`."""
        return f"{self.reason.value}: {self.detail}"
