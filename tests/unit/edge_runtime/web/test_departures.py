"""A study leaves the device while its page and the worklist are open."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from simulators.scores import scored

from edge_runtime.clock import SystemClock
from edge_runtime.model.clock import Mark
from edge_runtime.store.database import transaction
from edge_runtime.store.device import read_device
from edge_runtime.store.holdings import advance_age_clock, read_holdings
from edge_runtime.store.retention import begin_departure, end_departure, take_files
from edge_runtime.store.worklist import find_study, list_studies
from edge_runtime.web.lines import Shown
from edge_runtime.web.marks import mark_acknowledged, mark_shown

if TYPE_CHECKING:
    from unit.edge_runtime.web.conftest import Device, Site

NEGATIVE = scored(0.04, series_instance_uid="2.25.1")


def depart(device: Device, key: str) -> None:
    now = SystemClock().now()
    detail = find_study(device.connection, key)
    assert detail is not None
    study_id = detail.study.study_id
    read_device(device.connection)
    advance_age_clock(device.connection, now)
    (holding,) = (
        each for each in read_holdings(device.connection, now) if each.study_id == study_id
    )
    assert begin_departure(device.connection, holding, now)
    while take_files(device.connection, study_id, limit=10):
        pass
    end_departure(device.connection, study_id)


def test_a_study_that_leaves_disappears_from_an_open_worklist(device: Device, site: Site) -> None:
    gone, stays = device.analyse(1, NEGATIVE), device.analyse(2, NEGATIVE)
    with site.until(lambda text: gone in text and stays in text):
        pass
    with site.client() as client, client.stream("GET", "/events") as answer:
        orders = (
            json.loads(line.removeprefix("data: "))["order"]
            for line in answer.iter_lines()
            if line.startswith("data: ") and "order" in line
        )
        assert set(next(orders)) == {gone, stays}
        depart(device, gone)
        assert next(order for order in orders if gone not in order) == [stays]
    html = site.get("/").text
    assert gone not in html
    assert "No 2" in html


def test_the_page_of_a_study_that_left_says_so(device: Device, site: Site) -> None:
    key = device.analyse(1, NEGATIVE)
    assert site.get(f"/study/{key}").status_code == 200
    depart(device, key)
    answer = site.get(f"/study/{key}")
    assert answer.status_code == 404
    assert "may have left the device" in answer.text
    assert site.get(f"/api/studies/{key}").status_code == 404


def test_what_was_shown_of_a_study_that_left_holds_up_no_other_mark(device: Device) -> None:
    gone, stays = device.analyse(1, NEGATIVE), device.analyse(2, NEGATIVE)
    ids = {view.study_key: view.study_id for view in list_studies(device.connection, limit=5)}
    depart(device, gone)
    now = device.clock.now()
    shown = [
        Shown(study_id=ids[key], revision=1, model_name="head-ct-bleed") for key in (gone, stays)
    ]
    mark_shown(device.connection, shown, now)
    detail = find_study(device.connection, stays)
    assert detail is not None
    assert Mark.FIRST_SEEN in {stamp.mark for stamp in detail.stamps}
    assert mark_acknowledged(device.connection, gone, {1}, now) is None


def test_a_study_that_is_leaving_is_shown_whole_until_it_is_gone(device: Device) -> None:
    key = device.analyse(1, NEGATIVE)
    now = SystemClock().now()
    read_device(device.connection)
    advance_age_clock(device.connection, now)
    (holding,) = read_holdings(device.connection, now)
    assert begin_departure(device.connection, holding, now)
    take_files(device.connection, holding.study_id, limit=10)
    with transaction(device.connection):
        detail = find_study(device.connection, key)
    assert detail is not None
    assert detail.study.instances == 1
    assert len(detail.study.current) == 1
