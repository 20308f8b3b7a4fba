"""The holes of syft 0.9.5 (H1 to H13 of the cookbook), attacked at a real site by a researcher.

Each attack is made twice: with the objects that it needs, which are not even read, and with plain
values only, which are read and then refused because the path is not on the list.
"""

from __future__ import annotations

import json
import socket
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import factories
from datasites.keys import load_identity
from tests.attacks.attacker import UID, Answer, Call, attack, client, post, serialise, sign
from tests.attacks.jobs import job
from tests.attacks.victim import Victim

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from syft.client.api import SyftAPICall
    from syft.server.credentials import SyftVerifyKey
    from syft.service.action.action_object import Action, ActionObject, ActionType
    from syft.service.code.status_service import UserCodeStatusService
    from syft.service.code.user_code import (
        SubmitUserCode,
        UserCode,
        UserCodeStatus,
        UserCodeStatusCollection,
    )
    from syft.service.code.user_code_service import UserCodeService
    from syft.service.network.routes import HTTPServerRoute
    from syft.service.network.server_peer import ServerPeer
    from syft.service.request.request import SubmitRequest, UserCodeStatusChange
    from syft.service.user.user import UserCreate
    from syft.service.user.user_roles import ServiceRole
    from syft.store.linked_obj import LinkedObject
    from syft.types.uid import LineageID

NOT_TAKEN = "The call cannot be read."


def expect_nothing(victim: Victim, body: bytes, sentence: str) -> Answer:
    """Post an attack; it gives no value, this refusal, and one line in the audit log."""
    with victim.logged() as events:
        answer = post(victim.rita, body)
    assert answer.value is None
    assert sentence in answer.refusal
    assert [e["event"] for e in events] == ["call refused"]
    assert events[0]["reason"] == answer.refusal
    return answer


def expect_path_refused(victim: Victim, path: str, **kwargs: Any) -> None:
    """The same for a path that is called with plain values."""
    expect_nothing(
        victim,
        Call(path, kwargs).body(victim.rita),
        f"`{path}` is not something a researcher may call.",
    )


def expect_object_refused(victim: Victim, path: str, **kwargs: Any) -> None:
    """The same for objects that the site does not even build."""
    expect_nothing(victim, Call(path, kwargs).body(victim.rita), NOT_TAKEN)


@pytest.fixture(autouse=True)
def _site_goes_on(victim: Victim) -> Iterator[None]:
    """After each attack the honest twin of the call, on the same connection, is answered."""
    yield
    assert json.loads(attack(victim.rita, "sitegate.describe").value)["name"] == "st-marys"


def forged_blob(path: str) -> TypeError:
    """What made `blob_storage.allocate` point at any file: an object with free attributes."""
    error = TypeError()
    error.id, error.file_name = UID(), path
    error.type_, error.mimetype, error.file_size = None, "bytes", 1
    return error


def test_h1_reading_a_file_through_blob_storage_gets_nothing(victim):
    forged = forged_blob(str(victim.state / "identity.json"))
    expect_object_refused(victim, "blob_storage.allocate", obj=forged)
    expect_path_refused(victim, "blob_storage.read", uid=forged.id)
    assert victim.sql("SELECT * FROM BlobStorageEntry", file="datasite.db") == []


def test_h2_writing_a_file_through_blob_storage_writes_nothing(victim, tmp_path):
    target = tmp_path / "written"
    forged = forged_blob(str(target))
    expect_object_refused(victim, "blob_storage.allocate", obj=forged)
    expect_path_refused(victim, "blob_storage.write_to_disk", uid=forged.id, data=b"owned")
    assert not target.exists()


def test_h3_a_request_that_shows_one_code_and_approves_another_is_not_taken(victim):
    benign = victim.submit(factories.DOUBLE_JOB, approve=False)
    evil = victim.submit(job('raise ValueError("evil")'), approve=False)
    before = victim.trial.control.requests()

    def link(uid: UID, of: type, service: type) -> LinkedObject:
        return LinkedObject.from_uid(uid, of, service, UID.from_string(victim.rita._server_uid))

    shown, approved = (UID.from_string(s._codes["st-marys"]) for s in (benign, evil))
    swap = UserCodeStatusChange(
        value=UserCodeStatus.APPROVED,
        linked_user_code=link(shown, UserCode, UserCodeService),
        linked_obj=link(approved, UserCodeStatusCollection, UserCodeStatusService),
    )
    expect_object_refused(
        victim, "request.submit", request=SubmitRequest(changes=[swap]), send_message=True
    )
    assert victim.trial.control.requests() == before
    victim.hospital.decide(benign, "approve")
    assert list(victim.run(benign).weights["w"]) == [0, 2, 4, 6]
    assert [f.rule for f in victim.refused(evil).findings] == ["approval.state"]


@pytest.mark.parametrize("path", ["request.apply", "requestservice.apply"])
def test_h4_approving_ones_own_request_through_the_queue_leaves_it_pending(victim, path):
    study = victim.submit(factories.DOUBLE_JOB, approve=False)
    (syft_request,), *_ = victim.sql(
        "SELECT syft_request FROM requests WHERE id = ?", study.requests["st-marys"]
    )
    arguments = {"uid": UID.from_string(syft_request)}
    queued = Call(path, arguments, blocking=False).body(victim.rita)
    expect_nothing(victim, queued, "The call cannot be read.")
    expect_path_refused(victim, path, **arguments)
    assert study.states() == {"st-marys": "pending"}
    assert [f.rule for f in victim.refused(study).findings] == ["approval.state"]


def test_h4_an_allowed_call_does_not_run_in_the_queue_either(victim):
    queued = Call("sitegate.describe", blocking=False).body(victim.rita)
    expect_nothing(victim, queued, "The call cannot be read.")


def test_h5_mock_execution_with_a_forged_private_object_gets_nothing(victim):
    asset = UID.from_string(victim.rita.dataset("chest-xray").asset)
    forged = ActionObject.from_obj({"dataset": "chest-xray"})
    forged.id = asset
    forged.syft_client_verify_key = victim.rita._key.verify_key
    forged.syft_server_location = UID.from_string(victim.rita._server_uid)
    study = victim.submit(factories.DOUBLE_JOB, approve=False)
    code = UID.from_string(study._codes["st-marys"])
    expect_object_refused(
        victim, "code.call", uid=code, data=forged, weights={"w": forged}, config={}
    )
    expect_path_refused(victim, "user.update", uid=UID(), mock_execution_permission=1)
    assert [f.rule for f in victim.refused(study).findings] == ["approval.state"]


def test_h6_executing_tofile_on_the_private_array_writes_nothing(victim, tmp_path):
    target = tmp_path / "stolen.bin"
    asset = UID.from_string(victim.rita.dataset("chest-xray").asset)
    name = ActionObject.from_obj(str(target))
    expect_object_refused(victim, "action.set", action_object=name, add_storage_permission=True)
    action = Action(
        path="numpy.ndarray",
        op="tofile",
        remote_self=LineageID(asset),
        args=[LineageID(name.id)],
        kwargs={},
        action_type=ActionType.METHOD,
    )
    expect_object_refused(victim, "action.execute", action=action)
    assert not target.exists()


def test_h7_what_a_job_prints_cannot_be_read_back(victim):
    study = victim.submit(job('print("stdout of a job")\n' + "return {}"))
    victim.refused(study)
    for path in ("job.get_all", "job.get_active", "log.get_all"):
        expect_path_refused(victim, path)
    code = UID.from_string(study._codes["st-marys"])
    expect_path_refused(victim, "job.get_by_user_code_id", user_code_id=code)
    assert victim.sql("SELECT * FROM JobItem", file="datasite.db") == []


def test_h8_the_exception_text_of_a_job_cannot_be_read_back(victim):
    study = victim.submit(job('raise ValueError("secret " + str(data.arrays("train")[0][0, 0]))'))
    error = victim.refused(study)
    assert "secret" not in str(error)
    for path in ("log.get", "log.get_stderr", "log.get_stdout", "job.get"):
        expect_path_refused(victim, path, uid=UID())
    expect_path_refused(victim, "log.delete", uid=UID())
    assert victim.sql("SELECT * FROM SyftLog", file="datasite.db") == []


def test_h9_nobody_makes_an_account_over_the_network(victim):
    users = victim.sql("SELECT id FROM User", file="datasite.db")
    assert len(users) >= 3  # root, rita, mallory
    forged = UserCreate(
        email="eve@evil.example",
        name="eve",
        role=ServiceRole.ADMIN,
        password="correct horse battery",
        password_verify="correct horse battery",
    )
    expect_object_refused(victim, "user.create", user_create=forged)
    expect_object_refused(victim, "user.register", new_user=forged)
    plain = {"email": "eve@evil.example", "name": "eve", "password": "correct horse battery"}
    expect_path_refused(victim, "user.create", **plain)
    with client(victim.rita) as http:
        body = serialise(forged)
        assert http.post("/api/v2/register", content=body).status_code == 404
        assert http.post("/register", content=body).status_code == 404
    assert victim.sql("SELECT id FROM User", file="datasite.db") == users


def test_h10_output_records_of_other_peoples_code_cannot_be_forged(victim):
    study = victim.submit(factories.DOUBLE_JOB, runs=2)
    code = UID.from_string(study._codes["st-marys"])
    for _ in range(2):
        expect_object_refused(
            victim,
            "output.create",
            user_code_id=code,
            output_ids=[UID()],
            executing_user_verify_key=victim.rita._key.verify_key,
        )
    expect_path_refused(victim, "output.create", user_code_id=code, output_ids="x")
    expect_path_refused(victim, "output.get_by_user_code_id", user_code_id=code)
    assert victim.sql("SELECT * FROM ExecutionOutput", file="datasite.db") == []
    for round_number in (1, 2):  # the whole budget is there
        victim.run(study, round_number=round_number)


def test_h11_no_route_tells_what_a_key_may_call(victim):
    root = victim.rita._server_key
    own = str(victim.rita._key.verify_key)
    with client(victim.rita) as http:
        for key in (root, own):
            for path in ("/api/v2/api", "/api", "/api/v2/api/"):
                response = http.get(path, params={"verify_key": key})
                assert response.status_code == 404
                assert b"code.call" not in response.content
    expect_object_refused(victim, "api.get", verify_key=SyftVerifyKey.from_string(root))
    expect_path_refused(victim, "api.get", communication_protocol=1)


def test_h12_an_unsigned_body_is_refused_for_its_signature_before_it_is_read(victim):
    """The signature is named, not the type: the same bytes, signed, are refused for the type."""
    call = SyftAPICall(
        server_uid=UID.from_string(victim.rita._server_uid),
        path="blob_storage.allocate",
        args=[],
        kwargs={"obj": forged_blob("/etc/passwd")},
        blocking=True,
    )
    signed = sign(serialise(call), victim.rita._key)
    unsigned = signed[:32] + bytes(64) + signed[96:]
    expect_nothing(victim, unsigned, "The signature of the call is not valid.")
    expect_nothing(victim, signed, NOT_TAKEN)


def test_h12_a_registered_type_is_not_built_even_when_it_is_the_whole_message(victim):
    code = SubmitUserCode.model_construct(code="x")
    for thing in (forged_blob("/etc/passwd"), {"a": TypeError()}, code.__class__, 0.5, {1, 2}):
        message = serialise(thing)
        expect_nothing(victim, sign(message, victim.rita._key), NOT_TAKEN)


def test_h13_the_site_calls_no_host_that_a_researcher_names(victim):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(0.5)
        route = HTTPServerRoute(host_or_ip="127.0.0.1", port=port)
        key = victim.rita._key.verify_key
        identity = load_identity(victim.state)
        peer = ServerPeer(
            id=UID(),
            name="evil",
            verify_key=key,
            server_routes=[route],
            server_type="datasite",
            admin_email="",
        )
        expect_object_refused(
            victim,
            "network.exchange_credentials_with",
            self_server_route=route,
            remote_server_route=route,
            remote_server_verify_key=key,
        )
        expect_object_refused(
            victim,
            "network.add_peer",
            peer=peer,
            challenge=b"x",
            self_server_route=route,
            verify_key=key,
        )
        expect_path_refused(victim, "network.ping", challenge=identity.uid.encode())
        expect_path_refused(victim, "network.get_all_peers")
        with pytest.raises(TimeoutError):
            listener.accept()
    assert victim.sql("SELECT * FROM ServerPeer", file="datasite.db") == []
