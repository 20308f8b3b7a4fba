"""What the gate relies on in syft 0.9.5, piece by piece; a change of syft fails here first."""

from __future__ import annotations

import inspect

import pytest
import syft
from syft.service.code.user_code_service import UserCodeService
from syft.service.service import ServiceConfigRegistry, UserServiceConfigRegistry
from syft.service.user.user import User, UserCreate
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from datasites.errors import AccountError
from datasites.syft_gate import CALLS, _arguments, kept_address
from factories import PASSWORD
from policies.envelope import Call


def call(path: str, payload: bytes = b"", **arguments: str | int) -> Call:
    return Call("0" * 32, path, 0, "0" * 32, arguments, payload)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("rita@uni.example", "rita@uni.example"),
        ("Rita.R@UNI.Example", "Rita.R@uni.example"),
        ("Rita <rita@UNI.example>", "rita@uni.example"),
    ],
)
def test_the_address_is_known_before_syft_keeps_it(given, kept):
    assert kept_address(given) == kept
    made = UserCreate(email=given, name="R", password=PASSWORD, password_verify=PASSWORD)
    assert made.to(User).email == kept


@pytest.mark.parametrize("given", ["", "rita", "rita@", "@uni.example", "a b@uni.example"])
def test_what_is_no_address_is_refused_before_syft_sees_it(given):
    with pytest.raises(AccountError, match="is not an e-mail address"):
        kept_address(given)
    with pytest.raises(ValueError, match="email"):
        UserCreate(email=given, name="R", password=PASSWORD, password_verify=PASSWORD)


RUN = {"uid": "ab" * 16, "round": 1, "attempt": 1, "config": "{}"}


def test_syft_is_the_version_whose_internals_are_known():
    assert syft.__version__ == "0.9.5"


def test_call_still_finds_its_inner_method_on_the_class():
    source = inspect.getsource(UserCodeService.call.__wrapped__)
    assert "self._call(context, uid, **kwargs).unwrap()" in source
    parameters = list(inspect.signature(UserCodeService.call.__wrapped__).parameters)
    assert parameters[:3] == ["self", "context", "uid"]


def test_syfts_own_calls_in_the_allow_list_are_open_to_data_scientists():
    registry = UserServiceConfigRegistry.from_role(ServiceRole.DATA_SCIENTIST)
    for path in CALLS:
        if not path.startswith("sitegate."):
            assert ServiceConfigRegistry.path_exists(path)
            assert path in registry


def test_arguments_become_what_syft_takes():
    made = _arguments(call("code.call", b"arrays", **RUN), CALLS["code.call"])
    assert made == {**RUN, "uid": UID.from_string("ab" * 16), "weights": b"arrays"}


@pytest.mark.parametrize(
    "wrong",
    [
        call("code.call", **{**RUN, "more": 1}),
        call("code.call", **{k: v for k, v in RUN.items() if k != "attempt"}),
        call("code.call", **{**RUN, "round": "1"}),
        call("code.call", **{**RUN, "config": 1}),
        call("code.call", **{**RUN, "weights": "text"}),
        call("code.call", **{**RUN, "uid": "ab" * 15}),
        call("code.call", **{**RUN, "uid": "AB" * 16}),
        call("code.call", **{**RUN, "uid": "../../etc/passwd"}),
        call("code.call", **{**RUN, "uid": 7}),
        call("sitegate.describe", b"a payload where none is taken"),
        call("sitegate.describe", name="x"),
    ],
    ids=lambda wrong: f"{wrong.arguments} {wrong.payload!r}",
)
def test_other_arguments_are_not_taken(wrong):
    assert _arguments(wrong, CALLS[wrong.path]) is None
