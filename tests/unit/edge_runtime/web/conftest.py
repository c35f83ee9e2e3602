"""A real database filled through the store, and a real server on a free port."""

from __future__ import annotations

import contextlib
import itertools
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlencode

import httpx
import pytest
from simulators.hand_clock import HandClock
from simulators.model_papers import card_source
from simulators.waiting import wait_until

from dicom_node.instance import InstanceHeader, StoredInstance, StudyIdentity
from edge_runtime.clock import SystemClock
from edge_runtime.governance.card_page import CardPage, CardTheme, render_card_page
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.finding import Result
from edge_runtime.model.study import CompletionReason
from edge_runtime.store.analyses import (
    PlannedAnalysis,
    claim_analysis,
    complete_study,
    finish_analysis,
)
from edge_runtime.store.database import connect
from edge_runtime.store.inbox import SqliteInbox
from edge_runtime.store.worklist import StudyView, find_study, list_studies
from edge_runtime.web.context import ModelWords, WebContext
from edge_runtime.web.server import serve

ResultT = TypeVar("ResultT")

WAIT_S = 20.0
MODEL = "head-ct-bleed"
OWNER = "worker"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Device:
    """The other processes of a device, as far as the database shows them."""

    path: Path
    connection: sqlite3.Connection
    clock: HandClock = field(default_factory=HandClock)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def store(self, study: int, *, images: int = 1, identity: StudyIdentity | None = None) -> str:
        """Store images of a study; return its key."""
        inbox = SqliteInbox(self.connection, self.clock, reopens=lambda _header: True)
        for _ in range(images):
            inbox.record(_instance(study, next(self.numbers), identity or _identity(study)))
            self.clock.advance(0.01)
        return self.view(study).study_key

    def complete_new(self, study: int) -> None:
        """Store a study and queue it."""
        self.store(study)
        self.complete(study)

    def wait_for(
        self,
        read: Callable[[sqlite3.Connection], ResultT],
        is_so: Callable[[ResultT], bool],
    ) -> ResultT:
        """Read until it is so: the page writes behind what it shows."""
        found: list[ResultT] = []

        def holds() -> bool:
            found[:] = [read(self.connection)]
            return is_so(found[0])

        wait_until(holds, WAIT_S)
        return found[0]

    def complete(self, study: int, *, urgency: int = 3, models: tuple[str, ...] = (MODEL,)) -> None:
        """Declare a study complete, and queue it for the models."""
        view = self.view(study)
        assert complete_study(
            self.connection,
            view.study_id,
            instances_seen=view.instances,
            reason=CompletionReason.GEOMETRY,
            models=[
                PlannedAnalysis(model_name=name, model_version="1.0.0", urgency=urgency)
                for name in models
            ],
            channels=(),
            at=self.clock.now(),
        )

    def decide(self, result: Result) -> AnalysisState:
        """Claim the next analysis and finish it."""
        claim = claim_analysis(
            self.connection, owner=OWNER, at=self.clock.now(), lease_us=60_000_000
        )
        assert claim is not None
        self.clock.advance(0.4)
        return finish_analysis(
            self.connection,
            claim,
            result,
            owner=OWNER,
            engine="onnxruntime",
            channels=(),
            at=self.clock.now(),
        )

    def analyse(self, study: int, result: Result) -> str:
        """Take a study all the way; return its key."""
        key = self.store(study)
        self.complete(study)
        self.decide(result)
        return key

    def view(self, study: int) -> StudyView:
        """Return the study with this number."""
        uid = study_uid(study)
        views = list_studies(self.connection, limit=10_000)
        return next(view for view in views if view.study_instance_uid == uid)


def study_uid(study: int) -> str:
    """Return the Study Instance UID of a numbered study."""
    return f"2.25.{10_000 + study}"


def _identity(study: int) -> StudyIdentity:
    return StudyIdentity(
        patient_name=f"Patient^No {study}",
        patient_id=f"P{study}",
        patient_birth_date="19500131",
        patient_sex="F",
        accession_number=f"A{study}",
        study_description="CT head",
    )


def _instance(study: int, number: int, identity: StudyIdentity) -> StoredInstance:
    return StoredInstance(
        header=InstanceHeader(
            study_instance_uid=study_uid(study),
            series_instance_uid=f"{study_uid(study)}.1",
            sop_instance_uid=f"{study_uid(study)}.1.{number}",
            sop_class_uid=CT_IMAGE_STORAGE,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            modality="CT",
        ),
        identity=identity,
        path=f"{study}/{number}",
        file_bytes=512,
        calling_ae_title="SCANNER",
        association_id="association",
    )


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    connection = connect(tmp_path / "triage.db")
    made = Device(path=tmp_path / "triage.db", connection=connection)
    SqliteInbox(connection, made.clock, reopens=lambda _header: True).association_opened(
        "association", "SCANNER", "192.0.2.1"
    )
    yield made
    connection.close()


@pytest.fixture
def context(device: Device) -> WebContext:
    return WebContext(
        database=device.path,
        clock=SystemClock(),
        device_name="CT 2, ground floor",
        allowed_hosts=("triage.example",),
        models=MappingProxyType(
            {
                MODEL: ModelWords(
                    version="1.0.0",
                    finding="Intracranial haemorrhage",
                    findings={"bright": "Intracranial haemorrhage"},
                    disclaimer="Trained and tested on computed phantoms only.",
                    demonstration=True,
                )
            }
        ),
        read_card=_card,
    )


def _card(name: str) -> CardPage | None:
    return render_card_page(card_source(), CardTheme.DEVICE) if name == MODEL else None


@dataclass
class Site:
    """A served page."""

    base_url: str
    stop: threading.Event
    thread: threading.Thread

    def client(self, **headers: str) -> httpx.Client:
        """Return a client of the page."""
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=WAIT_S)

    @contextlib.contextmanager
    def until(self, is_so: Callable[[str], bool]) -> Iterator[str]:
        """Wait, with the feed as the bell, until the worklist is so; yield its HTML."""
        deadline = time.monotonic() + WAIT_S
        with self.client() as client, client.stream("GET", "/events") as bell:
            for line in bell.iter_lines():
                if line.startswith("data: ") and is_so(html := self.get("/").text):
                    break
                assert time.monotonic() < deadline, "the worklist never became so"
        yield html

    def acknowledge(self, key: str, device: Device) -> httpx.Response:
        """Press Acknowledge as the worklist's form does."""
        detail = find_study(device.connection, key)
        assert detail is not None
        ids = [("analysis", str(a.analysis_id)) for a in detail.study.analyses]
        with self.client(origin=self.base_url) as client:
            return client.post(
                f"/study/{key}/acknowledge",
                content=urlencode([*ids, ("back", "worklist")]),
                headers={"content-type": "application/x-www-form-urlencoded"},
            )

    def get(self, path: str) -> httpx.Response:
        """Fetch one page."""
        with self.client() as client:
            return client.get(path)


Serve = Callable[[WebContext], Site]


@pytest.fixture
def serve_site() -> Iterator[Serve]:
    """Start servers; each is stopped and joined at the end."""
    sites: list[Site] = []

    def start(context: WebContext) -> Site:
        ports: queue.Queue[int] = queue.Queue()
        stop = threading.Event()
        thread = threading.Thread(
            target=serve,
            args=(context, "127.0.0.1", 0, stop),
            kwargs={"on_listening": ports.put},
            name="site",
        )
        thread.start()
        site = Site(base_url="", stop=stop, thread=thread)
        sites.append(site)
        site.base_url = f"http://127.0.0.1:{ports.get(timeout=WAIT_S)}"
        return site

    yield start
    for site in sites:
        site.stop.set()
        site.thread.join(WAIT_S)
        assert not site.thread.is_alive()


@pytest.fixture
def site(serve_site: Serve, context: WebContext) -> Site:
    return serve_site(context)
