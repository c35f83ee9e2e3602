from __future__ import annotations

import dataclasses
import json
import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.instance import InstanceHeader, StudyIdentity
from edge_runtime.store.codec import (
    decode_header,
    decode_identity,
    encode_header,
    encode_identity,
)

TEXT = st.text(max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(-(2**31), 2**31)
HEADERS = st.builds(
    InstanceHeader,
    study_instance_uid=TEXT,
    series_instance_uid=TEXT,
    sop_instance_uid=TEXT,
    sop_class_uid=TEXT,
    transfer_syntax_uid=TEXT,
    modality=st.none() | TEXT,
    image_type=st.lists(TEXT, max_size=4).map(tuple),
    contrast_bolus=st.booleans(),
    patient_age_years=st.none() | FINITE,
    instance_number=st.none() | COUNT,
    rows=st.none() | COUNT,
    rescale_slope=st.none() | FINITE,
    pixel_spacing_mm=st.none() | st.tuples(FINITE, FINITE),
    image_position_mm=st.none() | st.tuples(FINITE, FINITE, FINITE),
    image_orientation=st.none() | st.tuples(*[FINITE] * 6),
    has_pixel_data=st.booleans(),
    pixel_data_offset=st.none() | COUNT,
    pixel_data_length=st.none() | COUNT,
)
IDENTITIES = st.builds(
    StudyIdentity, **{field.name: TEXT for field in dataclasses.fields(StudyIdentity)}
)


def _is_json_for_the_database(text: str) -> bool:
    connection = sqlite3.connect(":memory:")
    try:
        return bool(connection.execute("SELECT json_valid(?)", (text,)).fetchone()[0])
    finally:
        connection.close()


@given(HEADERS)
def test_a_header_comes_back_as_it_was(header: InstanceHeader) -> None:
    text = encode_header(header)
    assert decode_header(text) == header
    assert _is_json_for_the_database(text)


@given(HEADERS, HEADERS)
def test_two_images_of_one_series_share_nothing_that_is_their_own(
    one: InstanceHeader, other: InstanceHeader
) -> None:
    second = dataclasses.replace(
        one,
        sop_instance_uid=other.sop_instance_uid,
        instance_number=other.instance_number,
        image_position_mm=other.image_position_mm,
        pixel_data_offset=other.pixel_data_offset,
    )
    for header in (one, second, one):
        assert decode_header(encode_header(header)) == header


@given(HEADERS)
def test_a_header_is_written_as_plain_json(header: InstanceHeader) -> None:
    values = dataclasses.asdict(header)
    plain = json.dumps({name: value for name, value in values.items() if value is not None})
    assert json.loads(encode_header(header)) == json.loads(plain)


@given(IDENTITIES)
def test_an_identity_comes_back_as_it_was(identity: StudyIdentity) -> None:
    text = encode_identity(identity)
    assert decode_identity(text) == identity
    assert _is_json_for_the_database(text)


def test_absent_attributes_take_no_room() -> None:
    header = InstanceHeader(
        study_instance_uid="1",
        series_instance_uid="2",
        sop_instance_uid="3",
        sop_class_uid="4",
        transfer_syntax_uid="5",
    )
    assert "null" not in encode_header(header)


def test_a_row_of_an_earlier_release_without_a_newer_attribute_is_read() -> None:
    text = (
        '{"study_instance_uid":"1","series_instance_uid":"2","sop_instance_uid":"3",'
        '"sop_class_uid":"4","transfer_syntax_uid":"5"}'
    )
    assert decode_header(text).rows is None
    assert decode_identity("{}") == StudyIdentity()
