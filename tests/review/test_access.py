"""Who gets in, and what a request can reach."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from review.review_studies import ORIGIN, Client, annotation
from synthoma.errors import RunError
from synthoma.review.access import MOST_BYTES, Doorkeeper
from synthoma.review.annotation import AnnotationKind
from synthoma.review.app import Review
from synthoma.review.serving import Address
from synthoma.review.store import Store


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> AnnotationKind:
    return annotation(tmp_path_factory.mktemp("access"), readers=("reader", "reader"))


@pytest.fixture
def client(kind: AnnotationKind) -> Client:
    return Client(kind)


def test_nothing_but_the_entrance_opens_without_a_cookie(kind: AnnotationKind) -> None:
    stranger = Client(kind, enter=False)
    code = kind.store.tasks()[0].code
    for path in ("/api/work", f"/api/task/{code}", f"/api/task/{code}/scan/0", f"/api/task/{code}/labels"):
        assert stranger.get(path).status_code == 401
    assert stranger.answer(code, {}, 0).status_code == 401
    assert "Open the link" in stranger.get("/").text


@pytest.mark.parametrize("token", ["", "wrong", "ü", "0" * 64])
def test_a_wrong_token_opens_nothing(kind: AnnotationKind, token: str) -> None:
    answer = Client(kind, enter=False).http.get("/enter", params={"token": token})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_token_of_another_study_opens_nothing(kind: AnnotationKind, tmp_path: Path) -> None:
    other = Store(tmp_path)
    reader = other.add_reader("reader 1")
    token = Doorkeeper(other, once=False).link_token(reader)
    assert Client(kind, enter=False).http.get(f"/enter?token={token}").status_code == 403


def test_a_one_time_link_works_once(kind: AnnotationKind) -> None:
    doors = Doorkeeper(kind.store, once=True)
    http = TestClient(Review(kind, doors).application((ORIGIN,)), base_url=ORIGIN, follow_redirects=False)
    token = doors.link_token(kind.store.readers()[0])
    assert http.get(f"/enter?token={token}").status_code == 303
    assert http.get(f"/enter?token={token}").status_code == 403
    assert http.get("/api/work").status_code == 200  # the cookie stays good


def test_the_cookie_is_closed_to_scripts_and_to_other_sites(kind: AnnotationKind) -> None:
    token = Doorkeeper(kind.store, once=False).link_token(kind.store.readers()[0])
    cookie = Client(kind, enter=False).http.get(f"/enter?token={token}").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://127.0.0.1:8000", "http://127.0.0.1:9"])
def test_a_write_from_another_page_is_refused(client: Client, origin: str) -> None:
    code = client.work()[0]["code"]
    assert client.post(f"/api/task/{code}/answer", b"{}", origin=origin).status_code == 403


def test_a_form_of_another_page_cannot_write(client: Client) -> None:
    code = client.work()[0]["code"]
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""):
        assert client.post(f"/api/task/{code}/answer", b"{}", **{"content-type": kind}).status_code == 415


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:9"])
def test_a_foreign_name_of_this_machine_gets_nothing(client: Client, host: str) -> None:
    assert client.http.get("/", headers={"host": host}).status_code == 421


def test_every_page_may_load_from_this_server_only(client: Client) -> None:
    for path in ("/", "/api/work", "/static/viewer.js", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e%2fapp.py", "/static/..%5capp.py", "/static/base.html", "/static//etc/passwd",
     "/static/%2fetc%2fpasswd", "/api/task/..%2f..%2fstudy.db", "/api/task/%2e%2e/scan/0", "/static/"],
)  # fmt: skip
def test_no_path_reaches_the_file_system(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_a_reader_cannot_open_the_task_of_another(kind: AnnotationKind) -> None:
    one, two = Client(kind, 0), Client(kind, 1)
    code = one.work()[0]["code"]
    for path in ("", "/scan/0", "/labels"):
        assert one.get(f"/api/task/{code}{path}").status_code == 200
        assert two.get(f"/api/task/{code}{path}").status_code == 404
    assert two.answer(code, {"candidates": []}, 0).status_code == 404


def test_an_oversized_body_is_refused_told_or_not(client: Client) -> None:
    code = client.work()[0]["code"]
    body = bytes(MOST_BYTES + 1)
    assert client.post(f"/api/task/{code}/mask", body).status_code == 413

    def chunks():  # type: ignore[no-untyped-def]
        for _ in range(MOST_BYTES // 2**20 + 1):
            yield bytes(2**20)

    headers = {"origin": ORIGIN, "content-type": "application/octet-stream"}
    answer = client.http.post(f"/api/task/{code}/mask", content=chunks(), headers=headers)
    assert answer.status_code == 413
    assert "too large" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"no json", b"{}", b'{"key": "x"}', b'{"key": "12345678", "after": -1, "content": {}}', b"[" * 50_000],
)
def test_a_damaged_answer_is_a_sentence(client: Client, body: bytes) -> None:
    code = client.work()[0]["code"]
    answer = client.post(f"/api/task/{code}/answer", body)
    assert answer.status_code == 422
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[0,0,0,1,1,1]", b"[0,0,0,2,2,2]\nnonsense", b"[0,0,0,99,1,1]\n" + zlib.compress(bytes(99)),
     b"[9999999999,0,0,1,1,1]\n" + zlib.compress(b"a"), b'"box"\n', b"[0,0,0,1e9,1,1]\nx"],
)  # fmt: skip
def test_a_damaged_mask_upload_is_a_sentence_and_leaves_nothing(client: Client, body: bytes) -> None:
    code = client.work()[0]["code"]
    answer = client.post(f"/api/task/{code}/mask", body, **{"content-type": "application/octet-stream"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]


def test_an_answer_cannot_name_a_mask_that_never_came(client: Client) -> None:
    code = client.work()[0]["code"]
    content = client.task(code)["state"]["content"]
    assert client.answer(code, content, 0, mask="f" * 32).status_code == 422


def test_no_page_names_a_patient(client: Client) -> None:
    texts = [client.get("/").text, json.dumps(client.work())]
    texts += [client.get(f"/api/task/{task['code']}").text for task in client.work()]
    assert not [text for text in texts if "smith" in text.lower() or "jones" in text.lower()]


def test_other_machines_get_in_through_tls_or_a_proxy_only(tmp_path: Path) -> None:
    Address().check()
    Address("0.0.0.0", certificate=tmp_path).check()
    Address("0.0.0.0", public="https://reading.example").check()
    with pytest.raises(RunError, match="over the network"):
        Address("0.0.0.0").check()
    with pytest.raises(RunError, match="not encrypted"):
        Address("0.0.0.0", public="http://reading.example").check()
