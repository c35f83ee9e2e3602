"""A real browser keeps the worklist open, and a flag appears in it without a reload.

Chromium is driven through its own pipe (--remote-debugging-pipe: JSON, each message ended by NUL,
file descriptors 3 and 4), so that no driver is needed.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.scores import scored

from dicom_node.instance import InstanceHeader, StoredInstance, StudyIdentity
from edge_runtime.clock import SystemClock
from edge_runtime.model.clock import Mark
from edge_runtime.model.study import CompletionReason
from edge_runtime.store.analyses import (
    PlannedAnalysis,
    claim_analysis,
    complete_study,
    finish_analysis,
)
from edge_runtime.store.database import connect
from edge_runtime.store.device import read_device
from edge_runtime.store.holdings import advance_age_clock, read_holdings
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.retention import begin_departure, end_departure, take_files
from edge_runtime.store.worklist import find_study, list_studies
from edge_runtime.web.context import ModelWords, WebContext
from edge_runtime.web.server import serve

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]

WAIT_S = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
MODEL = "head-ct-bleed"
NAME = 'Doe^<b>Jane</b>"'


class Browser:
    """One page in headless Chromium."""

    def __init__(self, profile: Path) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        # The shell puts the pipe where Chromium looks for it.
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash"),
                *("chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._receive, name="chromium")
        self._thread.start()
        self._count = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in pages if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def _receive(self) -> None:
        pending = b""
        while chunk := os.read(self._read, 65_536):
            *whole, pending = (pending + chunk).split(b"\0")
            for message in whole:
                self._messages.put(json.loads(message))
        self._messages.put(None)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send one command and return its result; events that come meanwhile are kept."""
        self._count += 1
        message: dict[str, object] = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._messages.get(timeout=WAIT_S)
            assert answer is not None, "chromium ended"
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression, or a promise, gives in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Wait until a condition holds in the page; it is tried at every change of the page."""
        self.evaluate(
            f"""new Promise((resolve, reject) => {{
              const holds = () => {condition};
              if (document.readyState !== "loading" && holds()) return resolve();
              const observer = new MutationObserver(() => {{
                if (holds()) {{ observer.disconnect(); resolve(); }}
              }});
              observer.observe(document, {{
                subtree: true, childList: true, attributes: true, characterData: true }});
              setTimeout(() => reject(new Error("waited in vain")), {WAIT_S * 500});
            }})"""
        )

    def open(self, url: str) -> None:
        """Open a page and wait until its address is the present one."""
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + WAIT_S
        while self.evaluate("location.href") != url:
            assert time.monotonic() < deadline, "the page did not open"

    def close(self) -> None:
        """End Chromium and wait for it."""
        os.write(self._write, b'{"id": 0, "method": "Browser.close"}\0')
        self._process.wait(WAIT_S)
        self._thread.join(WAIT_S)
        os.close(self._write)
        os.close(self._read)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path / "profile")
    yield opened
    opened.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "triage.db"
    connect(path).close()
    return path


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def page_url(database: Path, stop: threading.Event) -> Iterator[str]:
    words = ModelWords(
        version="1.0.0",
        finding="Intracranial haemorrhage",
        findings={"bright": "Intracranial haemorrhage"},
        disclaimer="Trained on phantoms.",
        demonstration=True,
    )
    context = WebContext(
        database=database,
        clock=SystemClock(),
        device_name="CT 1",
        allowed_hosts=(),
        models={MODEL: words},
        read_card=lambda _name: None,
    )
    ports: queue.Queue[int] = queue.Queue()
    server = threading.Thread(
        target=serve,
        args=(context, "127.0.0.1", 0, stop),
        kwargs={"on_listening": ports.put},
        name="page",
    )
    server.start()
    yield f"http://127.0.0.1:{ports.get(timeout=WAIT_S)}/"
    stop.set()
    server.join(WAIT_S)


class Device:
    """What node and worker would write for one study."""

    def __init__(self, database: Path) -> None:
        self.connection = connect(database)
        self._clock = SystemClock()

    def receive(self) -> None:
        """Store one image."""
        inbox = SqliteInbox(self.connection, self._clock, reopens=lambda _header: True)
        inbox.association_opened("association", "SCANNER", "192.0.2.1")
        header = InstanceHeader(
            study_instance_uid="2.25.1",
            series_instance_uid="2.25.2",
            sop_instance_uid="2.25.3",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
        )
        inbox.record(
            StoredInstance(
                header=header,
                identity=StudyIdentity(patient_name=NAME, study_description="CT head"),
                path="1/1",
                file_bytes=1,
                calling_ae_title="SCANNER",
                association_id="association",
            )
        )

    def flag(self) -> None:
        """Complete the study and suspect something."""
        (study,) = list_studies(self.connection, limit=2)
        complete_study(
            self.connection,
            study.study_id,
            instances_seen=1,
            reason=CompletionReason.COUNTS,
            models=[PlannedAnalysis(model_name=MODEL, model_version="1.0.0", urgency=3)],
            channels=(),
            at=self._clock.now(),
        )
        claim = claim_analysis(
            self.connection, owner="worker", at=self._clock.now(), lease_us=60_000_000
        )
        assert claim is not None
        finish_analysis(
            self.connection,
            claim,
            scored(0.9, series_instance_uid="2.25.2"),
            owner="worker",
            engine="onnxruntime",
            channels=(),
            at=self._clock.now(),
        )

    def leave(self) -> None:
        """Let the study go, as retention does."""
        now = self._clock.now()
        read_device(self.connection)
        advance_age_clock(self.connection, now)
        (holding,) = read_holdings(self.connection, now)
        assert begin_departure(self.connection, holding, now)
        while take_files(self.connection, holding.study_id, limit=10):
            pass
        end_departure(self.connection, holding.study_id)

    def marks(self) -> set[Mark]:
        """Return what has been stamped."""
        (study,) = list_studies(self.connection, limit=2)
        detail = find_study(self.connection, study.study_key)
        assert detail is not None
        return {stamp.mark for stamp in detail.stamps}


@pytest.fixture
def device(database: Path) -> Iterator[Device]:
    made = Device(database)
    yield made
    made.connection.close()


def test_a_flag_appears_without_reload_and_is_acknowledged(
    browser: Browser, page_url: str, device: Device
) -> None:
    browser.open(page_url)
    browser.wait_until('document.getElementById("connection").dataset.state === "live"')
    browser.evaluate("window.sameDocument = true")
    device.receive()
    browser.wait_until('document.querySelector("tr.study .badge.receiving")')
    device.flag()
    browser.wait_until('document.querySelector("tr.study.open .badge.suspected")')
    assert "Suspected: Intracranial haemorrhage" in browser.evaluate(
        'document.getElementById("announcer").textContent'
    )
    assert browser.evaluate('document.querySelector("tr.study a").textContent') == (
        NAME.replace("^", ", ")
    )
    browser.wait_until('/ s$/.test(document.querySelector("td.took").textContent)')
    browser.evaluate('document.querySelector("tr.study button").click()')
    browser.wait_until('document.querySelector("tr.study .done")')
    assert browser.evaluate("window.sameDocument") is True
    assert {Mark.FIRST_SEEN, Mark.ACKNOWLEDGED} <= device.marks()
    _assert_nothing_was_blocked_or_foreign(browser, page_url)


def test_the_study_page_follows_the_study(browser: Browser, page_url: str, device: Device) -> None:
    device.receive()
    (study,) = list_studies(device.connection, limit=2)
    browser.open(f"{page_url}study/{study.study_key}")
    browser.wait_until('document.querySelector("#main .badge.receiving")')
    browser.evaluate("window.sameDocument = true")
    device.flag()
    browser.wait_until('document.querySelector("#main .badge.suspected")')
    assert browser.evaluate("window.sameDocument") is True
    browser.evaluate('document.querySelector("#main button").click()')
    browser.wait_until('document.querySelector("#main .done")')
    assert Mark.ACKNOWLEDGED in device.marks()


def test_the_study_page_says_that_its_study_has_left(
    browser: Browser, page_url: str, device: Device
) -> None:
    device.receive()
    device.flag()
    (study,) = list_studies(device.connection, limit=2)
    browser.open(f"{page_url}study/{study.study_key}")
    browser.wait_until('document.querySelector("#main .badge.suspected")')
    device.leave()
    browser.wait_until(
        'document.getElementById("main").textContent.includes("may have left the device")'
    )
    assert "Doe" not in browser.evaluate("document.documentElement.textContent")
    assert "Doe" not in browser.evaluate("document.title")


def test_a_page_that_lost_the_device_says_that_its_data_may_be_old(
    browser: Browser, page_url: str, stop: threading.Event
) -> None:
    browser.open(page_url)
    browser.wait_until('document.getElementById("connection").dataset.state === "live"')
    stop.set()
    browser.wait_until('!document.getElementById("stale").hidden')
    words = browser.evaluate('document.getElementById("stale").textContent')
    assert "New flags may be missing" in words
    assert "data may be old" in browser.evaluate(
        'document.getElementById("connection").textContent'
    )


def _assert_nothing_was_blocked_or_foreign(browser: Browser, page_url: str) -> None:
    requests = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert requests
    assert all(url.startswith(page_url) for url in requests)
    complaints = [
        event["params"]
        for event in browser.events
        if event["method"] in {"Log.entryAdded", "Runtime.exceptionThrown"}
    ]
    assert complaints == []
