"""The pages as a browser gets them: a real server, a real database filled through the store."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulators.scores import scored

from dicom_node.instance import StudyIdentity
from dicom_node.mpps import StepMessage, StepOperation, StepReference, StepStatus
from edge_runtime.clock import SystemClock
from edge_runtime.config.settings import EngineBackend
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Mark
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import TRIAGE_NOTICE, Broken, Refused
from edge_runtime.model.reasons import REASONS, ReasonCode, ReasonKind
from edge_runtime.store.alarms import AlarmCode, raise_alarm
from edge_runtime.store.database import transaction
from edge_runtime.store.deliveries import open_delivery
from edge_runtime.store.engines import (
    EngineInUse,
    EngineObstacle,
    PassedOverEngine,
    record_engines,
)
from edge_runtime.store.procedure_steps import SqliteProcedureSteps
from edge_runtime.store.processes import Role, record_beat
from edge_runtime.store.worklist import find_study
from edge_runtime.web.context import WebContext
from edge_runtime.web.reading import PAGE_LINES
from tools.study_report import report_study

if TYPE_CHECKING:
    from unit.edge_runtime.web.conftest import Device, Serve, Site

POSITIVE = scored(0.93, series_instance_uid="2.25.1")
NEGATIVE = scored(0.04, series_instance_uid="2.25.1")
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


class _Page(HTMLParser):
    """The rows of the worklist in order, each as its text, and every tag of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.keys: list[str] = []
        self.texts: dict[str, str] = {}
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        key = dict(attrs).get("data-key")
        if key:
            self.keys.append(key)
            self.texts[key] = ""

    def handle_data(self, data: str) -> None:
        if self.keys:
            joined = f"{self.texts[self.keys[-1]]} {data}"
            self.texts[self.keys[-1]] = " ".join(joined.split())


def test_suspected_studies_stand_on_top_and_then_the_longest_waiting(
    device: Device, site: Site
) -> None:
    old = device.analyse(1, NEGATIVE)
    device.clock.advance(60)
    flagged = device.analyse(2, POSITIVE)
    device.clock.advance(60)
    new = device.store(3)
    with site.until(lambda text: text.count("data-key") == 3) as html:
        assert _Page(html).keys == [flagged, old, new]


def test_every_state_of_a_study_says_what_it_is(device: Device, site: Site) -> None:
    expected = {
        device.analyse(1, POSITIVE): "Suspected Intracranial haemorrhage",
        device.analyse(2, NEGATIVE): "Not suspected Intracranial haemorrhage",
        device.analyse(3, Refused(reason=ReasonCode.MISSING_SLICES, detail="12.5 mm gap")): (
            "Not analysed Intracranial haemorrhage "
            f"{REASONS[ReasonCode.MISSING_SLICES].sentence} (12.5 mm gap)"
        ),
        device.analyse(4, Broken(reason=ReasonCode.ENGINE_FAILED)): (
            f"Failed Intracranial haemorrhage {REASONS[ReasonCode.ENGINE_FAILED].sentence}"
        ),
    }
    device.complete_new(5)
    expected[device.view(5).study_key] = "Waiting Intracranial haemorrhage"
    expected[device.store(6)] = "Receiving…"
    with site.until(lambda text: text.count("data-key") == len(expected)) as html:
        texts = _Page(html).texts
    assert set(texts) == set(expected)
    for key, words in expected.items():
        assert texts[key].startswith(words), texts[key]


def test_every_reason_has_its_sentence_on_the_page(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    keys = {}
    for study, (reason, entry) in enumerate(REASONS.items()):
        kind = Broken if entry.kind is ReasonKind.FAILED else Refused
        keys[reason] = device.analyse(study, kind(reason=reason))
    texts = _Page(serve_site(context).get("/").text).texts
    for reason, key in keys.items():
        assert REASONS[reason].sentence in texts[key]


def test_a_superseded_suspicion_stays_visible_and_on_top(device: Device, site: Site) -> None:
    calm = device.analyse(1, NEGATIVE)
    device.clock.advance(60)
    flagged = device.analyse(2, POSITIVE)
    device.store(2)
    with site.until(lambda text: "Revision 1:" in text) as html:
        text = _Page(html).texts[flagged]
    assert text.startswith("Receiving… Revision 1: Suspected Intracranial haemorrhage")
    device.complete(2)
    device.decide(NEGATIVE)
    with site.until(lambda text: "superseded, stays on top" in text) as html:
        page = _Page(html)
    assert page.keys == [flagged, calm]
    assert page.texts[flagged].startswith("Not suspected Intracranial haemorrhage Revision 1:")
    assert "Suspected superseded, stays on top" in page.texts[flagged]


def test_two_models_each_have_their_own_verdict(device: Device, site: Site) -> None:
    key = device.store(1)
    device.complete(1, models=("head-ct-bleed", "other"))
    device.decide(POSITIVE)
    device.decide(Refused(reason=ReasonCode.MISSING_SLICES))
    with site.until(lambda text: "Not analysed" in text) as html:
        text = _Page(html).texts[key]
    assert "Suspected Intracranial haemorrhage" in text
    assert REASONS[ReasonCode.MISSING_SLICES].sentence in text


OUT_OF_SCOPE = REASONS[ReasonCode.WRONG_MODALITY].sentence


def test_a_model_that_a_study_is_not_for_speaks_on_the_page_of_the_study_only(
    device: Device, site: Site
) -> None:
    key = device.store(1)
    device.complete(1, models=("head-ct-bleed", "chest"))
    device.decide(NEGATIVE)
    device.decide(Refused(reason=ReasonCode.WRONG_MODALITY))
    with site.until(lambda text: "Not suspected" in text) as html:
        assert OUT_OF_SCOPE not in _Page(html).texts[key]
        assert "<strong>0</strong> not analysed" in html
    assert OUT_OF_SCOPE in site.get(f"/study/{key}").text


def test_a_study_that_is_for_no_model_says_so_on_the_worklist(device: Device, site: Site) -> None:
    key = device.analyse(1, Refused(reason=ReasonCode.WRONG_MODALITY))
    with site.until(lambda text: "Not analysed" in text) as html:
        assert OUT_OF_SCOPE in _Page(html).texts[key]
        assert "<strong>1</strong> not analysed" in html


def test_an_unknown_study_without_a_model_says_that_none_is_active(
    device: Device, site: Site
) -> None:
    key = device.store(1)
    device.complete(1, models=())
    device.decide(Refused(reason=ReasonCode.NO_ACTIVE_MODEL))
    with site.until(lambda text: "Not analysed" in text) as html:
        assert REASONS[ReasonCode.NO_ACTIVE_MODEL].sentence in _Page(html).texts[key]


def test_hostile_identities_are_text_and_nothing_else(device: Device, site: Site) -> None:
    identity = StudyIdentity(
        patient_name=HOSTILE,
        patient_id=HOSTILE,
        patient_birth_date=HOSTILE,
        patient_sex=HOSTILE,
        accession_number=HOSTILE,
        study_description="\u202e" + HOSTILE,
        referring_physician_name=HOSTILE,
    )
    key = device.store(1, identity=identity)
    device.complete(1)
    device.decide(POSITIVE)
    with site.until(lambda text: "Suspected" in text) as html:
        assert html.count("&lt;script&gt;") >= 5
    for html in (site.get("/").text, site.get(f"/study/{key}").text):
        page = _Page(html)
        assert "img" not in page.tags
        assert "onerror" not in page.attributes
        assert html.count("<script") == 1  # our own


@pytest.mark.parametrize(
    "path", ["/", "/device", "/models", "/study/KEY", "/nowhere", "/study/unknown"]
)
def test_every_page_says_triage_and_demonstration_and_is_guarded(
    device: Device, serve_site: Serve, context: WebContext, path: str
) -> None:
    key = device.analyse(1, POSITIVE)
    answer = serve_site(context).get(path.replace("KEY", key))
    assert TRIAGE_NOTICE in answer.text
    assert "Demonstration, not a cleared device." in answer.text
    assert context.models["head-ct-bleed"].disclaimer in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


def test_pages_ask_nothing_from_another_origin_and_hold_no_inline_code(
    device: Device, site: Site
) -> None:
    key = device.analyse(1, POSITIVE)
    for path in ("/", f"/study/{key}", "/device", "/models"):
        html = site.get(path).text
        assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", html)
        assert not re.search(r"""\s(?:on\w+|style)=""", html)
        assert re.findall(r"<script[^>]*>", html) == ['<script src="/static/page.js" defer>']


def test_the_list_of_models_and_the_page_of_the_device_lead_to_the_card(
    site: Site, context: WebContext
) -> None:
    link = '<a href="/models/head-ct-bleed/card">'
    for path in ("/models", "/device"):
        html = site.get(path).text
        assert link in html
        assert "Intracranial haemorrhage" in html
    card = site.get("/models/head-ct-bleed/card")
    assert card.status_code == 200
    page = context.read_card("head-ct-bleed")
    assert page is not None
    assert card.text == page.html
    assert site.get("/models/unknown/card").status_code == 404


def test_a_card_is_served_under_its_own_policy_that_runs_nothing(site: Site) -> None:
    answer = site.get("/models/head-ct-bleed/card")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert "<script" not in answer.text
    for words in (TRIAGE_NOTICE, "Demonstration, not a cleared device."):
        assert words in answer.text


def test_a_device_without_models_says_so(serve_site: Serve, context: WebContext) -> None:
    html = serve_site(replace(context, models={})).get("/models").text
    assert "No model is active" in html


def test_assets_are_small_local_and_revalidated(site: Site) -> None:
    total = len(site.get("/").content)
    for name in ("style.css", "page.js", "icon.svg"):
        answer = site.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache"
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        total += len(answer.content)
    assert total < 60_000


def test_a_full_first_page_stays_below_200_kb_and_leads_to_older_studies(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    oldest = device.analyse(1, NEGATIVE)
    for study in range(2, PAGE_LINES + 3):
        device.store(study)
    site = serve_site(context)
    first = site.get("/")
    assert len(_Page(first.text).keys) == PAGE_LINES
    assert len(first.content) < 180_000  # leaves room for style and script
    assert oldest not in first.text
    assert 'href="/?page=2"' in first.text
    second = site.get("/?page=2").text
    assert _Page(second).keys[0] == oldest
    assert "does not update itself" in second
    assert site.get("/?page=3").status_code == 404
    assert site.get("/?page=0").status_code == 400
    assert site.get("/?page=x").status_code == 400


def test_an_older_suspicion_stays_on_the_first_page_until_it_is_acknowledged(
    device: Device, site: Site
) -> None:
    flagged = device.analyse(1, POSITIVE)
    for study in range(2, PAGE_LINES + 3):
        device.store(study)
    with site.until(lambda text: text.count("data-key") == PAGE_LINES + 1) as html:
        assert _Page(html).keys[0] == flagged
    site.acknowledge(flagged, device)
    with site.until(lambda text: text.count("data-key") == PAGE_LINES) as html:
        assert flagged not in html


def test_the_first_page_that_shows_an_outcome_stamps_it_as_seen(device: Device, site: Site) -> None:
    key = device.analyse(1, POSITIVE)
    with site.until(lambda text: "Suspected" in text):
        pass
    detail = device.wait_for(
        lambda db: find_study(db, key),
        lambda detail: detail is not None and Mark.FIRST_SEEN in {s.mark for s in detail.stamps},
    )
    assert detail is not None
    (seen,) = [stamp for stamp in detail.stamps if stamp.mark is Mark.FIRST_SEEN]
    assert (seen.subject, seen.revision) == ("head-ct-bleed", 1)


def test_acknowledging_stamps_what_the_reader_saw(device: Device, site: Site) -> None:
    key = device.analyse(1, POSITIVE)
    with site.until(lambda text: "1 to acknowledge" in text):
        pass
    answer = site.acknowledge(key, device)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    detail = find_study(device.connection, key)
    assert detail is not None
    (mark,) = [stamp for stamp in detail.stamps if stamp.mark is Mark.ACKNOWLEDGED]
    assert mark.subject == "head-ct-bleed"
    with site.until(lambda text: "Acknowledged" in text) as html:
        assert "to acknowledge" not in html
        assert "Suspected" in _Page(html).texts[key]


def test_acknowledging_from_elsewhere_or_without_sense_is_refused(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    key = device.analyse(1, POSITIVE)
    ours = {"sec-fetch-site": "same-origin"}
    with serve_site(context).client() as client:
        for headers, body, status in (
            ({"origin": "http://evil.example"}, "analysis=1", 403),
            ({}, "analysis=1", 403),
            ({"sec-fetch-site": "cross-site"}, "analysis=1", 403),
            (ours, "analysis=x", 400),
            (ours, "analysis=999", 400),
            (ours, "analysis=" + "9" * 400, 400),
            (ours, "analysis=1&" * 40, 400),
            (ours, "analysis=1&" * 2000, 413),
        ):
            answer = client.post(f"/study/{key}/acknowledge", content=body, headers=headers)
            assert answer.status_code == status, body[:40]
        assert client.post("/study/none/acknowledge", content="", headers=ours).status_code == 404
        assert client.post("/", content="", headers=ours).status_code == 405
    detail = find_study(device.connection, key)
    assert detail is not None
    assert Mark.ACKNOWLEDGED not in {stamp.mark for stamp in detail.stamps}


def test_only_known_host_names_are_answered(site: Site) -> None:
    with site.client() as client:
        assert client.get("/", headers={"host": "triage.example:8080"}).status_code == 200
        assert client.get("/", headers={"host": "localhost"}).status_code == 200
        refused = client.get("/", headers={"host": "rebound.example"})
    assert refused.status_code == 421
    assert "Patient" not in refused.text


def test_the_study_page_shows_clock_score_and_deliveries(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    key = device.analyse(1, POSITIVE)
    (analysis,) = device.view(1).analyses
    with transaction(device.connection):
        open_delivery(
            device.connection, analysis.analysis_id, Channel.STRUCTURED_REPORT, device.clock.now()
        )
    html = serve_site(context).get(f"/study/{key}").text
    for words in (
        "0.93",
        "flag from 0.50",
        "head-ct-bleed 1.0.0",
        "onnxruntime",
        "Last image stored",
        "Outcome decided",
        "+ 0.410 s",
        "Structured report to the PACS",
        "Waiting to be sent",
        "Acknowledge",
        "the slices leave no gap",
    ):
        assert words in html, words
    assert "not synchronised" not in html


def test_the_study_page_warns_when_the_clock_was_not_synchronised(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    device.clock.set_back(0)
    key = device.analyse(1, NEGATIVE)
    assert "clock was not synchronised" in serve_site(context).get(f"/study/{key}").text


def test_studies_are_addressed_by_opaque_keys_only(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    device.store(1)
    site = serve_site(context)
    uid = device.view(1).study_instance_uid
    assert site.get(f"/study/{uid}").status_code == 404
    assert site.get(f"/api/studies/{uid}").status_code == 404
    assert uid not in site.get("/").text


def test_the_api_tells_the_same_facts(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    calm = device.analyse(1, NEGATIVE)
    flagged = device.analyse(2, POSITIVE)
    site = serve_site(context)
    listing = site.get("/api/studies?limit=1&offset=0").json()
    assert listing["notice"] == TRIAGE_NOTICE
    assert (listing["total"], [s["study_key"] for s in listing["studies"]]) == (2, [flagged])
    assert site.get("/api/studies?limit=1&offset=1").json()["studies"][0]["study_key"] == calm
    assert len(site.get("/api/studies?limit=100000").json()["studies"]) == 2
    one = site.get(f"/api/studies/{flagged}").json()
    assert one["analyses"][0]["state"] == AnalysisState.SUSPECTED.value
    assert one["analyses"][0]["demonstration"] is True
    assert "decided" in {stamp["mark"] for stamp in one["clock"]}
    assert site.get("/api/studies?offset=-1").status_code == 400
    assert "error" in site.get("/api/studies/unknown").json()


def test_silent_parts_and_standing_alarms_are_said_above_the_list(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    now = SystemClock().now()
    late = replace(now, wall_us=now.wall_us - 60_000_000)
    for role, at in ((Role.NODE, now), (Role.WORKER, late)):
        record_beat(
            device.connection,
            role,
            pid=4242,
            started_wall_us=late.wall_us,
            rss_bytes=2**20,
            peak_rss_bytes=2**21,
            at=at,
        )
    with transaction(device.connection):
        raise_alarm(device.connection, AlarmCode.MODEL_REFUSED, now, subject="head-ct-bleed")
    site = serve_site(context)
    html = site.get("/").text
    assert "studies are waiting, not negative" in html
    assert "new studies may be missing" not in html
    assert "A model was refused at start" in html
    page = site.get("/device").text
    assert page.count("Does not answer") == 1
    assert "4242" in page
    assert "MODEL_REFUSED" in page
    assert "1.0.0" in page


def test_the_page_says_what_runs_each_model_and_what_was_passed_over(
    device: Device, site: Site
) -> None:
    record_engines(
        device.connection,
        [
            EngineInUse(
                model_key="head-ct-bleed",
                engine="onnxruntime 1.31.0 CPUExecutionProvider, in place of tensorrt",
                refusal="",
                passed_over=(
                    PassedOverEngine(
                        backend=EngineBackend.TENSORRT,
                        obstacle=EngineObstacle.NOT_AVAILABLE,
                        detail="there is no <libcuda>; install the driver",
                    ),
                ),
            ),
            EngineInUse(model_key="chest", engine="", refusal="2 decisions differ", passed_over=()),
        ],
        device.clock.now(),
    )
    page = site.get("/device").text
    assert "onnxruntime 1.31.0 CPUExecutionProvider<" in page
    assert "instead of tensorrt" in page
    assert "Not available here: there is no &lt;libcuda&gt;; install the driver" in page
    assert page.count("Not the engine preferred here") == 1
    assert "2 decisions differ" in page
    assert "ENGINE_FALLBACK" in page
    assert "ENGINE_MISSING" in page
    worklist = site.get("/").text
    assert "runs on another engine than the one preferred" in worklist
    assert "No engine runs a model here" in worklist


def test_an_empty_device_says_that_it_waits_and_healthz_says_that_it_lives(site: Site) -> None:
    assert "No studies yet" in site.get("/").text
    assert site.get("/healthz").json()["healthy"] is True


def test_a_bug_answers_500_without_a_word_about_patients(
    device: Device, serve_site: Serve, context: WebContext, tmp_path: Path
) -> None:
    del tmp_path
    key = device.analyse(1, POSITIVE)
    site = serve_site(context)
    device.connection.execute('UPDATE study SET identity = \'{"unknown": "Canary"}\'')
    answer = site.get(f"/study/{key}")
    assert answer.status_code == 500
    assert "Canary" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"


def test_a_reading_that_fails_leaves_the_page_up_and_behind(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    key = device.analyse(1, POSITIVE)
    site = serve_site(context)
    with site.client() as client, client.stream("GET", "/events") as bell:
        device.connection.execute('UPDATE study SET identity = \'{"unknown": "Canary"}\'')
        for line in bell.iter_lines():
            if line.startswith('data: {"now_ms"') and '"behind_ms":0}' not in line:
                break
        assert key in site.get("/").text


def test_the_page_of_a_study_tells_what_the_scanner_said(device: Device, site: Site) -> None:
    key = device.analyse(1, Refused(reason=ReasonCode.PROCEDURE_DISCONTINUED))
    assert "At the scanner" not in site.get(f"/study/{key}").text
    book = SqliteProcedureSteps(device.connection, device.clock, relays=False, max_steps=10)
    begun = StepMessage(
        operation=StepOperation.CREATE,
        sop_instance_uid="2.25.9",
        status=StepStatus.IN_PROGRESS,
        study_instance_uids=(device.view(1).study_instance_uid,),
        references=(),
        transfer_syntax_uid="1.2.840.10008.1.2",
        data_set=b"",
    )
    book.note(begun)
    image = StepReference(series_instance_uid="2.25.8", sop_instance_uid="2.25.7", is_image=True)
    ended = replace(
        begun,
        operation=StepOperation.SET,
        status=StepStatus.DISCONTINUED,
        references=(image,),
    )
    book.note(ended)
    text = site.get(f"/study/{key}").text
    assert "At the scanner" in text
    assert "broken off, 1 image named" in text
    detail = find_study(device.connection, key)
    assert detail is not None
    steps = report_study(detail)["procedure_steps"]
    assert isinstance(steps, list)
    assert [(step["state"], step["images"]) for step in steps] == [("DISCONTINUED", 1)]
