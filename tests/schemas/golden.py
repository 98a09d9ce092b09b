"""The golden records of version 1: for each file, what its lines decode to."""

from pathlib import Path

from thalweg.schemas.events import Erase, Feedback, Impression, Item, Merge, Request, User
from thalweg.schemas.outputs import DeadLetter, Example, Score

DIRECTORY = Path(__file__).parent.parent / "golden" / "v1"
TS = 1_700_000_000_123
LONGEST_ID = "é" * 128

EVENTS = {
    "impression": [
        Impression("1", "u1", "v1", TS, {}),
        Impression(
            "8123456",
            "użytkownik-💧",
            'видео 7/"x"\\',
            TS,
            {
                "tab": "home",
                "empty": "",
                "größe": "groß",
                "hour": 13,
                "least": -(2**63),
                "most": 2**63 - 1,
                "past_2_53": 2**53 + 1,
                "age": 0.1,
                "whole": 2.0,
                "tiny": 5e-324,
                "large": 1.7976931348623157e308,
                "minus_zero": -0.0,
                "tags": ["a", "ä", ""],
                "none": [],
            },
            0.25,
        ),
        Impression(LONGEST_ID, LONGEST_ID, LONGEST_ID, 946_684_800_000, {"a": "b"}, 0.0),
        Impression("\n\t\u0001", "\u2028", "\U0010ffff", 4_102_444_799_999, {"a": ["b"]}, 1.0),
    ],
    "feedback": [
        Feedback.of("1:click", "1", "u1", "v1", TS, "click"),
        Feedback.of("покупка", "8123456", "użytkownik-💧", "видео", TS, "kauf-größe", -12.75),
    ],
    "action": [
        Feedback.of("a1", None, "u1", "v1", TS, "search"),
        Feedback.of("a2", None, "u1", "видео", TS, "buy", 2.5),
    ],
    "request": [
        Request("r1", "u1", [], TS, {}),
        Request(
            "anfrage-ß", "użytkownik-💧", ["v1", "видео", "💧"], TS, {"tab": 2, "tags": ["x"], "age": 1.5, "g": "ü"}
        ),
    ],
    "item": [
        Item("f1", "v1", TS, {}),
        Item(
            "größe-💧",
            "видео",
            TS,
            {
                "author": "užer",
                "length_s": 12.5,
                "whole": 2.0,
                "day": 19_000,
                "tags": ["a", "ä"],
                "none": [],
                "gone": None,
            },
        ),
    ],
    "user": [
        User("f2", "u1", TS, {}),
        User("f3", "użytkownik-💧", TS, {"land": "Österreich", "age": 31, "gone": None}),
    ],
    "merge": [
        Merge("m1", {}),
        Merge("mérge-💧", {0: 4711, 3: 98, 999_999: 2**63 - 1}, [2, 7], "interactions-4-17"),
    ],
    "erase": [Erase("e1", "u1", TS), Erase("löschen", "użytkownik-💧", TS)],
}

OUTPUTS = {
    "score": [
        Score(
            id="1",
            user="u1",
            item="v1",
            ts=TS,
            score=0.1,
            model_score=0.30000000000000004,
            correction=-0.2,
            origin="interactions-0-4",
            cause="interactions-0-4:0",
        ),
        Score(
            id="1",
            user="użytkownik-💧",
            item="видео",
            ts=TS,
            score=1.0,
            model_score=5e-324,
            base_score=0.25,
            correction=0.0,
            origin="user-interactions-63-9007199254740993",
            cause="user-interactions-63-9007199254740993:0",
            features={
                "tab": "home",
                "hour": 13,
                "rate": 0.015625,
                "interest": [0.5, -0.25],
                "tags": ["a", "ä"],
                "none": [],
            },
        ),
    ],
    "example": [
        Example(
            id="1",
            user="u1",
            item="v1",
            ts=TS,
            features={},
            score=0.1,
            label=0,
            origin="interactions-0-4",
            cause="interactions-0-9:0",
        ),
        Example(
            id="1",
            user="użytkownik-💧",
            item="видео",
            ts=TS,
            features={
                "tab": "home",
                "hour": 13,
                "rate": 0.015625,
                "interest": [0.5, -0.25],
                "tags": ["a", "ä"],
                "none": [],
            },
            score=0.9999999999999999,
            base_score=0.25,
            label=1,
            revision=1,
            origin="interactions-0-4",
            cause="interactions-0-9:17",
        ),
    ],
    "dead_letter": [
        DeadLetter(
            origin="interactions-0-4", cause="interactions-0-4:0", reason="empty", detail="a tombstone", raw=None
        ),
        DeadLetter(
            origin="interactions-0-5",
            cause="interactions-0-5:0",
            reason="not_utf8",
            detail="byte 0 is not UTF-8",
            raw=b"\xff\x00{",
            key="użytkownik".encode(),
            headers=[("trace", b"\x01\xff"), ("größe", b"")],
        ),
    ],
}

WRITTEN_BY_OTHERS = [
    Erase("e1", "u1", TS),
    Erase("e1", "u1", TS),
    Erase("e1", "é😀\0/", TS),
    Impression("1", "u1", "v1", TS, {"a": 3, "b": 1.0, "c": 0.0, "d": 0}),
    Feedback.of("1", "1", "u1", "v1", TS, "like"),
    Feedback.of("1", "1", "u1", "v1", TS, "like", 1e20),
    Erase("last", "u1", TS),
]
