"""What the gate relies on in syft 0.9.5, piece by piece; a change of syft fails here first."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import syft
from syft.client.api import SyftAPICall
from syft.serde import recursive
from syft.serde.serialize import _serialize
from syft.service.action.action_object import ActionObject
from syft.service.code.user_code_service import UserCodeService
from syft.service.service import ServiceConfigRegistry, UserServiceConfigRegistry
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from datasites import syft_gate
from datasites.syft_gate import CALLS, CallRefused, _read_plain, _restrict_deserialisation


@pytest.fixture(autouse=True)
def restricted(monkeypatch):
    """The restriction of deserialisation, taken back afterwards."""
    monkeypatch.setattr(recursive, "rs_proto2object", recursive.rs_proto2object)
    _restrict_deserialisation()


def message(**kwargs) -> bytes:
    call = SyftAPICall(server_uid=UID(), path="code.call", args=[], kwargs=kwargs, blocking=True)
    return _serialize(call, to_bytes=True)


def test_syft_is_the_version_whose_internals_are_known():
    assert syft.__version__ == "0.9.5"


def test_a_plain_message_is_read():
    call = _read_plain(message(uid=UID(), round=1, weights=b"x", config="{}", deep={"a": [None]}))
    assert call.path == "code.call"
    assert call.kwargs["weights"] == b"x"


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(3),  # an array
        ActionObject.from_obj({"a": 1}),  # syft's own object
        {"deep": [{"deeper": np.zeros(3)}]},  # nested where only plain types are expected
        3.5,  # a float: no argument is one
        ("a", "tuple"),
        {1, 2},
        TypeError(),  # what reads files through blob_storage.allocate
        UID,  # a type
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_message_with_any_other_type_is_not_built(value):
    with pytest.raises(CallRefused):
        _read_plain(message(value=value))


def test_bytes_that_are_no_message_are_refused():
    for junk in (b"", b"junk", b"\0" * 1000, message()[:-20]):
        with pytest.raises(CallRefused):
            _read_plain(junk)


def test_the_restriction_ends_with_the_message():
    with pytest.raises(CallRefused):
        _read_plain(message(value=np.zeros(3)))
    blob = _serialize(np.zeros(3), to_bytes=True)
    np.testing.assert_array_equal(recursive.rs_bytes2object(blob), np.zeros(3))


def test_call_still_finds_its_inner_method_on_the_class():
    source = inspect.getsource(UserCodeService.call.__wrapped__)
    assert "self._call(context, uid, **kwargs).unwrap()" in source
    assert list(inspect.signature(UserCodeService.call.__wrapped__).parameters)[:3] == [
        "self",
        "context",
        "uid",
    ]


def test_syfts_own_calls_in_the_allow_list_are_open_to_data_scientists():
    registry = UserServiceConfigRegistry.from_role(ServiceRole.DATA_SCIENTIST)
    for path in CALLS:
        if not path.startswith("sitegate."):
            assert ServiceConfigRegistry.path_exists(path)
            assert path in registry


def test_types_in_the_allow_list_are_registered_under_the_names_that_are_compared():
    call = SyftAPICall(server_uid=UID(), path="", args=[], kwargs={})
    values = ("a", b"a", 1, True, {}, [], None, UID(), call)
    names = {recursive.SyftObjectRegistry.get_canonical_name_version(v)[0] for v in values}
    assert names == syft_gate.PLAIN_TYPES
