"""Which stored values are padding: one, or a range with both its ends (PS3.3 C.7.5.1.1.2)."""

from __future__ import annotations

from dataclasses import dataclass

from engines.preprocessing.values import Mask, StoredPixels


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddingRange:
    """The lowest and the highest stored value that is padding, both included."""

    low: int
    high: int

    @classmethod
    def of(cls, value: int, limit: int | None, pixels: StoredPixels) -> PaddingRange:
        """Return the range in the pixels' own type: writers confuse US and SS here.

        Args:
            value: PixelPaddingValue (0028,0120).
            limit: PixelPaddingRangeLimit (0028,0121), the highest value of MONOCHROME2 images, the
                lowest of MONOCHROME1; None: the value alone is padding.
            pixels: whose type counts.
        """
        ends = [_in_type_of(pixels, end) for end in (value, value if limit is None else limit)]
        return cls(low=min(ends), high=max(ends))

    def mask(self, pixels: StoredPixels) -> Mask:
        """Return where padding lies in pixels of the type that the range was made for."""
        kind = pixels.dtype.type
        # One comparison for the one value that nearly every image has.
        found: Mask = (
            pixels == kind(self.low)
            if self.low == self.high
            else (pixels >= kind(self.low)) & (pixels <= kind(self.high))
        )
        return found


def _in_type_of(pixels: StoredPixels, value: int) -> int:
    bits = pixels.dtype.itemsize * 8
    unsigned = value & (1 << bits) - 1
    is_negative = pixels.dtype.kind == "i" and unsigned >> bits - 1
    return unsigned - (1 << bits) if is_negative else unsigned
