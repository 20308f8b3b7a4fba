"""Calls as bytes: what was written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import envelope
from policies.envelope import (
    HEADER_BYTES,
    Call,
    Envelope,
    join_message,
    open_envelope,
    read_call,
    signed_part,
    split_message,
)

CALL = Call("0" * 32, "code.call", 1_000, "f" * 32, {"uid": "1" * 32, "round": 3}, b"arrays")

texts = st.text(st.characters(codec="utf-8"), max_size=30)
arguments = st.dictionaries(texts, texts | st.integers(-(2**63), 2**63 - 1), max_size=5)


def framed(header: object, payload: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">I", len(encoded)) + encoded + payload


def header(**changes: object) -> dict[str, object]:
    plain = json.loads(CALL.to_bytes()[4:].removesuffix(b"arrays"))
    return {**plain, **changes}


@given(texts, texts, st.integers(-(2**63), 2**63 - 1), texts, arguments, st.binary(max_size=50))
def test_every_call_is_read_as_it_was_written(site, path, sent_at, nonce, given_arguments, payload):
    call = Call(site, path, sent_at, nonce, given_arguments, payload)
    assert read_call(call.to_bytes()) == call


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"abc",
        CALL.to_bytes()[:-20],  # cut inside the header
        framed(b"{"),
        framed(b"[" * 100_000),  # deep nesting
        framed([1, 2]),
        framed(header(more=1)),  # an unknown field
        framed({k: v for k, v in header().items() if k != "nonce"}),
        framed(header(path=3)),
        framed(header(path=None)),
        framed(header(sent_at=1.5)),
        framed(header(sent_at=True)),
        framed(header(sent_at=2**63)),
        framed(header(sent_at="1")),
        framed(b'{"site":"","path":"","nonce":"","arguments":{},"sent_at":' + b"9" * 5000 + b"}"),
        framed(header(arguments=[])),
        framed(header(arguments={"a": 1.5})),
        framed(header(arguments={"a": None})),
        framed(header(arguments={"a": True})),
        framed(header(arguments={"a": [1]})),
        framed(header(arguments={"a": {"b": 1}})),
        framed(header(arguments={"a": "\ud800"})),  # half a character
        framed(header(arguments={"\udfff": "a"})),
        framed(header(nonce="\ud800")),
        struct.pack(">I", 2**32 - 1) + b"x" * 100,
        struct.pack(">I", HEADER_BYTES + 1) + b" " * (HEADER_BYTES + 1),
    ],
    ids=lambda m: repr(m[:60]),
)
def test_what_is_not_a_call_is_not_read(message: bytes) -> None:
    assert read_call(message) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_without_an_error(message: bytes) -> None:
    assert read_call(message) is None or isinstance(read_call(message), Call)


def test_an_envelope_is_opened_into_its_three_parts() -> None:
    written = Envelope(b"k" * 32, b"s" * 64, b"m")
    assert open_envelope(written.to_bytes()) == written
    assert open_envelope(written.to_bytes()[:-1]) is None


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_every_message_is_split_where_it_was_joined(head: bytes, payload: bytes) -> None:
    assert split_message(join_message(head, payload)) == (head, payload)


@pytest.mark.parametrize("message", [b"", b"abc", join_message(b"head")[:-1]])
def test_a_message_that_is_cut_off_is_not_split(message: bytes) -> None:
    assert split_message(message) is None


def test_what_is_signed_is_the_purpose_and_the_digest_of_every_byte() -> None:
    signed = {
        signed_part(purpose, message)
        for purpose in (envelope.CALL, envelope.ANSWER)
        for message in (b"", b"m", b"n", b"m\0")
    }
    assert len(signed) == 8
    assert signed_part(envelope.CALL, b"") == b"sitegate call\n" + hashlib.sha256(b"").digest()
