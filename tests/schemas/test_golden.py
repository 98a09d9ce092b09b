"""Records of every released version decode for ever, and what we write stays the same to the byte."""

from hashlib import sha256

import msgspec
import pytest
from thalweg.schemas.decode import decoder
from thalweg.schemas.events import encode_event
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.outputs import DeadLetter, Example, Score, encode_dead_letter, encode_example, encode_scores

from tests.schemas.golden import DIRECTORY, EVENTS, OUTPUTS, WRITTEN_BY_OTHERS

SHA_256 = {
    "impression.jsonl": "17a2192586fdbbf3284b75ff42a776c33d5d8f6d20f0862a8bce03b5130592ab",
    "feedback.jsonl": "13da84b4f309f8fa8ef522d49c3f41953c15183aaa7b4c09de8e449b5202882a",
    "request.jsonl": "3ca80ee29b4a89574b3bd92553bbbe01812c92bddb5a65e0d83edf148ea45384",
    "item.jsonl": "00805ba8dd23cea5539b6156f850eb6726747000e795fa499faf8179f21ae613",
    "user.jsonl": "7e80fdf69151733e8350841e28cf9a39e8de980f026d1bf94a329b47d1ebcf81",
    "action.jsonl": "84dbabc04911db6a5658ada059f70a2e34e23bec73f684eeb6e03bfc71e8f4e3",
    "merge.jsonl": "4b133ec188e6ad54ceca049699f70e0cc333a640d7ad4a7cf7b2f5997943e842",
    "erase.jsonl": "030f68a8ee76700335e8f2f1d280ca1dc32461088aa52cef34e14f28ddc03d45",
    "score.jsonl": "27d2d8282a491b17ab0a0abd56909f888b6245e658394f33600592b238e3ce0b",
    "example.jsonl": "ef16a6372cc594fe07394ed77a4b9be6040cae1f2ebbf75d52b3c440ff167d21",
    "dead_letter.jsonl": "782f73cf8d4470adb3830ebb31b919aa6512686b0ecbe3d51036181c024e6e26",
    "written_by_others.jsonl": "d90a629ae4bed4eb89c1ceab54b7880861901a2cb9c2ce065d89cb417077b58d",
}


def encode_score(score):
    """Write a score as a block of one."""
    fields = (getattr(score, name) for name in Score.__struct_fields__)
    return encode_scores(*([field] for field in fields))[0]


WRITERS = {"score": (Score, encode_score), "example": (Example, encode_example)}
WRITERS["dead_letter"] = (DeadLetter, encode_dead_letter)


def lines_of(name):
    return (DIRECTORY / f"{name}.jsonl").read_bytes().splitlines()


def test_no_golden_file_changes():
    """A released golden file is never edited; a new version of the format gets a folder of its own."""
    assert {path.name: sha256(path.read_bytes()).hexdigest() for path in DIRECTORY.iterdir()} == SHA_256


@pytest.mark.parametrize("name", EVENTS)
def test_golden_events_decode(name):
    """Every golden event decodes to the event written beside it, under the default limits."""
    decode = decoder(LimitsConfiguration())
    decoded = [decode(line) for line in lines_of(name)]
    assert decoded == EVENTS[name]
    assert repr(decoded) == repr(EVENTS[name])  # 1 == 1.0 and 0.0 == -0.0


@pytest.mark.parametrize("name", EVENTS)
def test_golden_events_encode(name):
    """Every event encodes to its golden bytes."""
    assert [encode_event(event) for event in EVENTS[name]] == lines_of(name)


@pytest.mark.parametrize("name", OUTPUTS)
def test_golden_outputs_decode(name):
    """Every golden output decodes to the output written beside it."""
    decoded = [msgspec.json.decode(line, type=WRITERS[name][0]) for line in lines_of(name)]
    assert repr(decoded) == repr(OUTPUTS[name])


@pytest.mark.parametrize("name", OUTPUTS)
def test_golden_outputs_encode(name):
    """Every output encodes to its golden bytes."""
    assert [WRITERS[name][1](output) for output in OUTPUTS[name]] == lines_of(name)


def test_golden_events_of_other_writers_decode():
    """Spaces, escapes, other orders, nulls, unknown fields and repeated names decode to the events beside them."""
    decode = decoder(LimitsConfiguration())
    assert repr([decode(line) for line in lines_of("written_by_others")]) == repr(WRITTEN_BY_OTHERS)
