"""The page's requests, and who may make them."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from align.errors import UserError
from align.labelling.server import LabelServer, Progress, listen
from align.labelling.session import Session
from align.system.terminal import visible
from tests.align.labelling.conftest import Begin, made_pair

# Forty texts that a page or a terminal could act on: markup, scripts, control and direction characters.
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<iframe src='http://example.org'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "<body onload=alert(1)>",
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=//example.org>",
    "<meta http-equiv=refresh content=0>",
    "<base href=//example.org>",
    "<form action=//example.org><input></form>",
    "<textarea>",
    "</div></main></body></html>",
    "<!-- <b>",
    "-->",
    "]]>",
    "<![CDATA[x]]>",
    "&lt;b&gt;",
    "&#60;script&#62;",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "${7*7}",
    "`${alert(1)}`",
    "'\"><b>",
    "\\u003cscript\\u003e",
    "\\",
    "javascript:alert(1)",
    "[link](javascript:alert(1))",
    "[bold red]rich[/]",
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]8;;http://example.org\x1b\\link",
    "\x00nul",
    "\x08\x08\x7f",
    "\x9b31m",
    "\u202eright to left\u202c",
    "\u2066isolate\u2069",
    "\u200bzero\ufeffwidth",
    "line\u2028separator\u2029",
    "\ud800half",
    "\U000e0041tag",
)


def served(session: Session, annotator: str = "ann", **settings: Any) -> LabelServer:
    return LabelServer(session=session, annotator=annotator, progress=Progress(len(session.pairs)), **settings)


def client(server: LabelServer, **headers: str) -> TestClient:
    given = {"X-Label-Secret": server.secret, **headers}
    return TestClient(server.app(), base_url="http://127.0.0.1:8100", headers=given)


def verdict(state: Any, verdict: str = "left", **body: Any) -> dict[str, Any]:
    return {"pair": state["pair"]["key"], "verdict": verdict, "seconds": 1.5, **body}


# Judging


def test_judgements_undo_and_notes(begin: Begin) -> None:
    session = begin(count=3)
    page = client(served(session))
    state = page.get("/state").json()
    for said in ("left", "tie", "skip"):
        state = page.post("/judge", json=verdict(state, said, note=f"a note on {said}")).json()
    assert (state["pair"], state["done"], state["total"], state["waiting"]) == (None, 3, 3, False)
    assert state["counts"] == {"preference": 1, "tie": 1, "bad": 0, "skip": 1, "blank": 0}
    state = page.post("/undo", json={}).json()
    assert (state["pair"]["key"], state["done"], state["note"]) == ("p2", 2, "a note on skip")
    assert [one["note"] for one in session.judgements] == ["a note on left", "a note on tie"]
    page.post("/undo", json={})
    page.post("/undo", json={})
    assert page.post("/undo", json={}).json()["done"] == 0


def test_each_judgement_is_on_disk_before_the_next_pair_is_shown(begin: Begin) -> None:
    session = begin(count=4)
    page = client(served(session))
    state = page.get("/state").json()
    for done in (1, 2, 3):
        state = page.post("/judge", json=verdict(state, "right")).json()
        assert len(Session(session.folder).judgements) == done
        assert state["pair"]["key"] == f"p{done}"


def test_a_pair_is_judged_once_though_two_windows_show_it(begin: Begin) -> None:
    page = client(served(begin()))
    body = verdict(page.get("/state").json())
    assert page.post("/judge", json=body).status_code == 200
    again = page.post("/judge", json=body)
    assert (again.status_code, again.json()["error"][:30]) == (409, "This pair was judged already, ")
    assert page.get("/state").json()["done"] == 1


def test_two_annotators_see_the_same_pairs(begin: Begin) -> None:
    session = begin(count=2)
    for name in ("ann", "bob"):
        page = client(served(session, name))
        state = page.get("/state").json()
        assert state["pair"]["key"] == "p0"
        page.post("/judge", json=verdict(state))
    assert [one["annotator"] for one in session.judgements] == ["ann", "bob"]


def test_the_page_waits_for_answers_that_are_being_drawn(begin: Begin) -> None:
    server = served(begin(made_pair(0, "same", "same")))
    server.progress.total = 5
    state = client(server).get("/state").json()
    assert (state["pair"], state["waiting"], state["total"], state["same"]) == (None, True, 4, 1)
    server.progress.problem = "No more."
    state = client(server).get("/state").json()
    assert (state["waiting"], state["problem"]) == (False, "No more.")


def test_nothing_says_which_model_an_answer_is_of(begin: Begin) -> None:
    session = begin(count=40, against="runs/two")
    page = client(served(session))
    state = page.get("/state").json()
    assert set(state["pair"]) == {"key", "prompt", "left", "right"}
    assert set(state["pair"]["left"]) == {"text", "cut_off"}
    assert state["contest"] is None
    assert "runs/one wins" in page.post("/judge", json=verdict(state)).json()["contest"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"verdict": "best"}, "verdict must be one of left, right, tie, bad, skip."),
        ({"verdict": None}, "verdict must be"),
        ({"seconds": "1"}, "seconds must be a number."),
        ({"seconds": True}, "seconds must be a number."),
        ({"seconds": 1e999}, "seconds must be a number."),
        ({"seconds": 10**400}, "seconds must be a number."),
        ({"note": 3}, "note must be text."),
    ],
)
def test_a_wrong_request_changes_nothing(body: dict[str, Any], said: str, begin: Begin) -> None:
    session = begin()
    page = client(served(session))
    given = verdict(page.get("/state").json()) | body
    answer = page.post("/judge", content=json.dumps(given))
    assert (answer.status_code, answer.json()["error"][: len(said)]) == (400, said)
    assert session.judgements == []


@pytest.mark.parametrize(
    ("content", "status"), [(b"[", 400), (b"[1]", 400), (b"[" * 60_000, 400), (b" " * 70_000, 413)]
)
def test_what_is_no_object_or_too_long_is_refused(content: bytes, status: int, begin: Begin) -> None:
    assert client(served(begin())).post("/judge", content=content).status_code == status


def test_odd_seconds_and_notes_are_kept_within_bounds(begin: Begin) -> None:
    session = begin()
    page = client(served(session))
    page.post(
        "/judge", content=json.dumps(verdict(page.get("/state").json(), seconds=-5, note="\ud800" + "x" * 20_000))
    )
    (event,) = Session(session.folder).judgements
    assert (event["seconds"], event["note"][:2], len(event["note"])) == (0, "?x", 10_000)


# Text of models


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(text: str, begin: Begin) -> None:
    """The state is JSON in ASCII, and its texts have no character that acts; the page sets them as text only."""
    session = begin(made_pair(0, "an answer", "another"))
    pair = made_pair(
        1, text.encode(errors="replace").decode() + "a", "b", prompt=text.encode(errors="replace").decode()
    )
    session.add([pair])
    session.judge("ann", session.pairs[0], "tie")
    answer = client(served(session)).get("/state")
    assert answer.headers["content-type"] == "application/json"
    assert answer.content.isascii()
    shown = answer.json()["pair"]
    texts = [shown["prompt"][0]["text"], shown["left"]["text"], shown["right"]["text"], visible(text)]
    assert all(character.isprintable() for one in texts for character in one)


def test_breaks_of_two_characters_are_shown_as_one(begin: Begin) -> None:
    state = client(served(begin(made_pair(0, "a\r\nb", "c\rd")))).get("/state").json()
    assert {state["pair"][side]["text"] for side in ("left", "right")} == {"a\nb", "c\\rd"}


def test_the_page_holds_no_text_of_the_session_and_loads_nothing(begin: Begin) -> None:
    answer = client(served(begin(made_pair(0, prompt="a prompt that is not in the page")))).get("/")
    assert "that is not in the page" not in answer.text
    assert "http" not in answer.text.replace("http-equiv", "")
    assert "innerHTML" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    (nonce,) = {part.split("'")[0] for part in policy.split("'nonce-")[1:]}
    assert answer.text.count(f'nonce="{nonce}"') == 2


# Who may ask


def test_another_site_cannot_judge(begin: Begin) -> None:
    """It cannot set the header, and does not know the secret."""
    session = begin()
    server = served(session)
    body = verdict(client(server).get("/state").json())
    for secret in ("", "guess", "é"):
        bare = TestClient(server.app(), base_url="http://127.0.0.1:8100")
        headers = {"X-Label-Secret": secret.encode()} if secret else {}
        for path in ("/judge", "/undo"):
            assert bare.post(path, json=body, headers=headers).status_code == 403
    assert client(server).get("/judge").status_code == 405
    assert session.judgements == []


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "localhost.example.org", "10.0.0.1", ""])
def test_a_name_that_was_made_to_point_here_is_refused(host: str, begin: Begin) -> None:
    server = served(begin())
    assert client(server, Host=host).get("/").status_code == 400
    for own in ("localhost:8100", "127.0.0.1", "[::1]:8100"):
        assert client(server, Host=own).get("/").status_code == 200


def test_with_a_token_every_request_needs_the_password(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_TOKEN", "open:sesame")
    server = served(begin(), token_env="LABEL_TOKEN")
    page = client(server)
    for headers in ({}, {"Authorization": "Basic ?"}, {"Authorization": "Bearer open:sesame"}):
        for path in ("/", "/state"):
            answer = page.get(path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"][:5]) == (401, "Basic")
        assert page.post("/judge", json={}, headers=headers).status_code == 401
    assert page.get("/state", auth=("ann", "open sesame")).status_code == 401
    assert page.get("/state", auth=("ann", "open:sesame")).status_code == 200


def test_other_machines_need_a_token_and_a_certificate(begin: Begin) -> None:
    with pytest.raises(UserError, match="can be reached from other machines"):
        served(begin(), host="0.0.0.0")


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"host=127\.0\.0\.1 port={port} cannot be listened on"):
            listen("127.0.0.1", port)


def test_all_addresses_are_announced_as_one_that_a_browser_opens(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "Server", lambda _: SimpleNamespace(run=lambda **_: None))
    monkeypatch.setattr("align.labelling.server.check_listening", lambda *_: None)
    announced: list[str] = []
    with listen("0.0.0.0", 0) as listening:
        served(begin(), host="0.0.0.0").run(listening, announced.append)
        assert announced == [f"http://{socket.gethostname()}:{listening.getsockname()[1]}/"]
