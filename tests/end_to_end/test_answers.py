"""What a researcher's side does with an answer that is not the site's."""

from __future__ import annotations

import pytest
from nacl.signing import SigningKey

from federation.errors import FederationError
from policies.envelope import ANSWER, CALL, Envelope, join_message, open_envelope, signed_part

STRANGER = SigningKey(b"s" * 32)


def signed_by_a_stranger(body: bytes) -> bytes:
    message = open_envelope(body).message
    signature = STRANGER.sign(signed_part(ANSWER, message)).signature
    return Envelope(bytes(STRANGER.verify_key), signature, message).to_bytes()


def with_the_sites_name_on_it(body: bytes) -> bytes:
    return body[:32] + signed_by_a_stranger(body)[32:]


def with_more_arrays(body: bytes) -> bytes:
    return body + b"more"


def with_another_last_byte(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def cut_short(body: bytes) -> bytes:
    return body[:50]


@pytest.mark.parametrize(
    "change",
    [
        signed_by_a_stranger, with_the_sites_name_on_it, with_more_arrays, with_another_last_byte,
        cut_short,
    ],
)  # fmt: skip
def test_an_answer_that_the_site_did_not_sign_is_refused(rita, monkeypatch, change):
    site = rita["st-marys"]
    post = site._post
    monkeypatch.setattr(site, "_post", lambda path, body: change(post(path, body)))
    with pytest.raises(FederationError, match="was not signed by st-marys; do not go on"):
        site.call("sitegate.requests")


def test_a_call_of_the_researcher_is_no_answer(rita, monkeypatch):
    site = rita["st-marys"]
    key = site._key.signing_key
    message = join_message(b"head")
    body = Envelope(
        bytes(key.verify_key), key.sign(signed_part(CALL, message)).signature, message
    ).to_bytes()
    monkeypatch.setattr(site, "_server_key", bytes(key.verify_key).hex())
    with pytest.raises(FederationError, match="was not signed by st-marys"):
        site._opened(body)
