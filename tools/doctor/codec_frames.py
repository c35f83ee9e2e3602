"""One small frame for each family of compressed transfer syntaxes, made for this purpose.

Each is an 8 × 8 image of 16 bits, stored value 8000·row + 1000·column + 37, without loss; JPEG
baseline has the upper 8 bits of it. They are embedded, not encoded on the spot, because what
encodes may be what is missing. JPEG lossless, JPEG-LS and RLE were written by the encoders of
``tools.phantoms``, JPEG 2000 by OpenJPEG, HTJ2K by OpenJPH, JPEG baseline by libjpeg-turbo.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 8
"""Rows and columns."""


def expected_pixels(bits: int) -> NDArray[np.integer[Any]]:
    """Return the (8, 8) stored values of ``bits`` = 16 or 8 bits that the frames decode to."""
    rows, columns = np.indices((SIDE, SIDE))
    values: NDArray[np.integer[Any]] = (8000 * rows + 1000 * columns + 37) >> (16 - bits)
    return values


JPEG_LOSSLESS = b64decode(
    "/9j/wwALEAAIAAgBAREA/8QAJAAAAAUEAQEBAQEBAQEAAAAAAgMEBQYAAQcICQoLDA0ODxD/2gAIAQEAAQAA78AJ"
    "Ovo6+jr6Ovo6+jr6Ovo730Dr6Ovo6+jr6Ovo6+jr6O99A6+jr6Ovo6+jr6Ovo6+jvfQOvo6+jr6Ovo6+jr6Ovo73"
    "0Dr6Ovo6+jr6Ovo6+jr6O99A6+jr6Ovo6+jr6Ovo6+jvfQOvo6+jr6Ovo6+jr6Ovo730Dr6Ovo6+jr6Ovo6+jr6P"
    "/9k="
)
JPEG_LS = b64decode(
    "/9j/9wALEAAIAAgBAREA//gADQH//wASAEMBFABA/9oACAEBAAAAAESXz3z3zXy3yXx3xQABoB9B858x8p8h8Z9A"
    "AAZ0/C/A+++8+6+4fOAczfafZfYfXfWfVPmAOWPpvpPovoPnvnHygHJXzHy3ynyXyHxz5ADjz4r4j4b4T4L4B8YB"
    "xd75717x7t7p7k+I/9k="
)
JPEG_2000 = b64decode(
    "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1IADAAAAAEAAAQEAAH/XAAEQID/"
    "ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAACFAAH/k8/8McwRHba48QN/NBTg"
    "RAasBiTL+1/eNlZXn6XnNYUn/qGbOn2uvid7fJGuaO0ajXPUhSQF/JmbgMn9SZRjmrugemE/J0NnBYt8mUGRd3Du"
    "5XnZ3dyvKYV0nWy3HNdZTq/dfNxKNl5e0JaTOEhIa2wGEd8phIS//9k="
)
HTJ2K = b64decode(
    "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUE"
    "BEAB/1wAEyCIkJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGAAAf+TwAAm"
    "Td8Eh3QAAADAABNAABMApOMEB3QAJh0Fh3QAwAATwAAVAJIhGQOCdACejJ6MAUNUAMAAKqAAFaDOO++886pygnUA"
    "fr6f9/N+/sCEAey2AP/Z"
)
RLE = b64decode(
    "AgAAAEAAAACIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAcA"
    "BAcLDxMXGwcfIycrLzI2Ogc+QkZKTlJWWQddYWVpbXF1eQd9gYSIjJCUmAecoKSorK+ztwe7v8PHy8/T1gfa3uLm"
    "6u7y9gclDfXdxa2VfQdlTTUdBe3VvQeljXVdRS0V/QflzbWdhW1VPQclDfXdxa2VfQdlTTUdBe3VvQeljXVdRS0V"
    "/QflzbWdhW1VPQ=="
)
JPEG = b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJ"
    "BwYGCAsICQoKCgoKBggLDAsKDAkKCgr/wAALCAAIAAgBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcI"
    "CQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcY"
    "GRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKj"
    "pKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/AMr4"
    "cf8ABuLny/8Aig89P+Xb/wCtX//Z"
)
