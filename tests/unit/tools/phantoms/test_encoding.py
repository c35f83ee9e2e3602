from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.headers import STYLES, Style, style_for
from tools.phantoms.variants import PhantomName, make_study

SEEDS = {style: next(n for n in range(100) if style_for(n) is style) for style in Style}


def read(syntax: PhantomSyntax, style: Style) -> pydicom.Dataset:
    study = make_study(PhantomName.HEAD_CT, seed=SEEDS[style], slices=1, matrix=128, syntax=syntax)
    return pydicom.dcmread(io.BytesIO(next(study.files())))


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("syntax", PhantomSyntax)
def test_every_syntax_keeps_every_pixel_of_every_style(syntax: PhantomSyntax, style: Style) -> None:
    dataset = read(syntax, style)

    assert dataset.file_meta.TransferSyntaxUID == syntax.uid
    np.testing.assert_array_equal(
        dataset.pixel_array, read(PhantomSyntax.EXPLICIT, style).pixel_array
    )


@pytest.mark.parametrize("style", Style)
def test_styles_store_the_same_hounsfield_units_differently(style: Style) -> None:
    dataset = read(PhantomSyntax.EXPLICIT, style)
    hu = dataset.pixel_array.astype(int) * int(dataset.RescaleSlope) + int(dataset.RescaleIntercept)
    rules = STYLES[style]

    assert dataset.PixelRepresentation == int(rules.signed)
    assert dataset.Manufacturer == rules.manufacturer
    assert -30 < np.median(hu[44:84, 44:84]) < 80
    if rules.padding is not None:
        assert dataset.pixel_array[0, 0] == rules.padding == dataset.PixelPaddingValue


def test_a_report_without_pixels_is_sent_uncompressed() -> None:
    study = make_study(PhantomName.DOSE_REPORT, syntax=PhantomSyntax.JPEG2000)
    dataset = pydicom.dcmread(io.BytesIO(next(study.files())))

    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
