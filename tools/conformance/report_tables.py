"""What the device sends: reports, and what it does when a peer refuses them."""

from __future__ import annotations

from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.errors import StoreRefusedError
from dicom_node.mpps import StepStatus
from dicom_node.status import StoreStatus, is_stored
from edge_runtime.app.courier import _timeouts as courier_timeouts
from edge_runtime.config.settings import Settings
from edge_runtime.outputs.structured_report import _WORDINGS as WORDINGS
from edge_runtime.outputs.transport import delivery_error
from tools.conformance.markdown import code, table

# PS3.7 C and PS3.4 B.2.3: what a PACS may answer; beyond these, the same by class of status.
_ANSWERS = (
    *StoreStatus,
    0x0110,  # processing failure
    0xA701,
    0xB006,  # elements discarded
    0xB007,  # data set does not match SOP class, stored nevertheless
    0xC001,
)


def report_class() -> str:
    """The SOP class of the report."""
    return f"{Comprehensive3DSRStorage.name} ({code(str(Comprehensive3DSRStorage))})"


def report_outcomes() -> str:
    """The coded content of the report by outcome."""
    return table(
        (
            "Outcome",
            "Ends the Series Description",
            "Finding, CID 240",
            "CAD Processing and Findings Summary (111017, DCM)",
            "Summary of Analyses (111065, DCM)",
            "Completion Flag",
        ),
        (
            (
                state.value,
                wording.label,
                *(
                    f"{concept.meaning} ({concept.value}, {concept.scheme_designator})"
                    for concept in (wording.presence, wording.summary, wording.status)
                ),
                "COMPLETE" if wording.complete else "PARTIAL",
            )
            for state, wording in WORDINGS.items()
        ),
    )


def answers_to_stores() -> str:
    """What is done when a peer answers a C-STORE."""
    return table(
        ("Status", "Done"),
        ((code(f"{status:04X}"), _done(status)) for status in sorted(set(map(int, _ANSWERS)))),
    )


def _done(status: int) -> str:
    if is_stored(status):
        return "Delivered."
    if delivery_error(StoreRefusedError(status)).permanent:
        return "Not tried again by itself; an alarm stands, and people can send it again."
    return "Tried again, with growing pauses."


def requestor_timeouts() -> str:
    """How long a peer may take, by default."""
    timeouts = courier_timeouts(Settings())
    return table(
        ("Wait", "Seconds"),
        (
            ("for the connection", f"{timeouts.connect_s:g}"),
            ("for the A-ASSOCIATE-AC", f"{timeouts.association_s:g}"),
            ("for a response (`courier.timeout_s`)", f"{timeouts.answer_s:g}"),
        ),
    )


def step_states() -> str:
    """Performed Procedure Step Status."""
    return ", ".join(code(each.value) for each in StepStatus)
