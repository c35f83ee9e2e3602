"""The corpus of hostile packages: each is a good one with one thing spoilt."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.checksums import CHECKSUMS, MAX_CHECKSUMS_BYTES, MAX_DEPTH, MAX_FILE_BYTES
from engines.golden import MAX_GOLDEN_BYTES
from engines.loading import MAX_TEXT_BYTES
from simulators.hostile_models import HOSTILE_MODELS
from simulators.hostile_package import HostilePackage, edited, evaluated, listed, replaced

_INPUTS, _OUTPUTS = "golden/inputs.npz", "golden/outputs.npz"
_PAPERS = "package.toml", "card.toml", "evaluation.json"
_ZEROS = "0" * 64

FIGURE = """
[[figures]]
file = "roc.svg"
title = "ROC"
alt = "A curve."
"""
_STUDIES = """
[[studies]]
folder = "first"
outcome = "SUSPECTED"
findings = [{ key = "bright", probability = 0.9 }]

[[studies]]
folder = "second"
outcome = "NOT_SUSPECTED"
findings = [{ key = "bright", probability = 0.1 }]
"""


class _Payload:
    """Would make a file beside the package, if anybody loaded it."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("touch pickle-was-loaded",)


def _bad(
    name: str, spoil: Callable[[Path], object], reason: str, error: str = "PackageIntegrityError"
) -> HostilePackage:
    return HostilePackage(name=name, spoil=spoil, error=error, reason=reason)


def _paper(name: str, spoil: Callable[[Path], object], reason: str) -> HostilePackage:
    return _bad(name, spoil, reason, "PackageSchemaError")


def _golden(name: str, spoil: Callable[[Path], object], reason: str) -> HostilePackage:
    return _bad(name, spoil, reason, "GoldenFileError")


# --- files ---------------------------------------------------------------------------------------


def _moved_out(folder: Path, relative: str) -> Path:
    outside = folder.parent / f"outside-{Path(relative).name}"
    shutil.move(folder / relative, outside)
    return outside


def _link(relative: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / relative).symlink_to(_moved_out(folder, relative))

    return spoil


def _dangling(folder: Path) -> None:
    (folder / "note.txt").symlink_to("nowhere")


def _device(folder: Path) -> None:
    (folder / "zero").symlink_to("/dev/zero")


def _special(kind: int) -> Callable[[Path], None]:
    return lambda folder: os.mknod(folder / "special", kind | 0o600)


def _hard_link(folder: Path) -> None:
    path = folder / "model.onnx"
    path.unlink()
    os.link(folder / "card.toml", path)


def _deep(folder: Path) -> None:
    path = folder.joinpath(*("d" * (MAX_DEPTH + 1)))
    path.mkdir(parents=True)
    (path / "note.txt").write_text("deep")


def _extra(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("more")


def _sparse_giant(folder: Path) -> None:
    os.truncate(folder / "model.onnx", MAX_FILE_BYTES + 1)


def _folder_for_a_listing(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()
    (folder / CHECKSUMS).mkdir()


def _two_spellings(folder: Path) -> None:
    (folder / "Card.toml").write_text("surprise")
    lines = (folder / CHECKSUMS).read_text()
    (folder / CHECKSUMS).write_text(f"{_ZEROS}  Card.toml\n{lines}")


def _line(path: str) -> Callable[[Path], None]:
    """One more line, where it belongs."""

    def change(listing: bytes) -> bytes:
        lines = [*listing.decode().splitlines(), f"{_ZEROS}  {path}"]
        lines.sort(key=lambda line: line[66:])
        return "".join(f"{line}\n" for line in lines).encode()

    return listed(change)


def _swapped(listing: bytes) -> bytes:
    first, second, *others = listing.splitlines(keepends=True)
    return b"".join((second, first, *others))


_FILES = (
    _bad("path that climbs out", _line("../outside.txt"), "path is not allowed"),
    _bad("path that climbs out within", _line("golden/../../x"), "path is not allowed"),
    _bad("absolute path", _line("/etc/passwd"), "path is not allowed"),
    _bad("path through the same folder", _line("golden/./x"), "path is not allowed"),
    _bad("listing of itself", _line(CHECKSUMS), "path is not allowed"),
    _bad("path of other letters", _line("bäd.txt"), "not 'sha256  path'"),
    _bad("path with a control character", _line("a\x1b[2Jb"), "not 'sha256  path'"),
    _bad("path with backslashes", _line("..\\..\\x"), "not 'sha256  path'"),
    _bad("two spellings of a name", _two_spellings, "two spellings"),
    _bad("linked file", _link("model.onnx"), "is a link or a device"),
    _bad("linked folder", _link("golden"), "is a link or a device"),
    _bad("linked listing", _link(CHECKSUMS), "cannot be read"),
    _bad("dangling link", _dangling, "is a link or a device"),
    _bad("link to a device", _device, "is a link or a device"),
    _bad("pipe", _special(stat.S_IFIFO), "is a link or a device"),
    _bad("socket", _special(stat.S_IFSOCK), "is a link or a device"),
    _bad("one file under two names", _hard_link, "does not match its checksum"),
    _bad("unlisted file", _extra("more.txt"), "is not listed"),
    _bad("unlisted file of an evil name", _extra("a\nOK \x1b[0m"), r"'a\nOK \x1b[0m' is not"),
    _bad("missing file", lambda folder: (folder / _INPUTS).unlink(), "but missing"),
    _bad("changed file", lambda f: (f / "card.toml").write_text("x"), "does not match its check"),
    _bad("no listing", lambda folder: (folder / CHECKSUMS).unlink(), "cannot be read"),
    _bad("folder for a listing", _folder_for_a_listing, "CHECKSUMS cannot be read"),
    _bad("empty listing", listed(lambda _: b""), "empty or cut short"),
    _bad("gigantic listing", listed(lambda _: b"0" * (MAX_CHECKSUMS_BYTES + 1)), "larger than"),
    _bad("line twice", listed(lambda old: old.splitlines(keepends=True)[0] + old), "or twice"),
    _bad("lines out of order", listed(_swapped), "line 2: not sorted"),
    _bad("lines of another system", listed(lambda old: old.replace(b"\n", b"\r\n")), "line 1: not"),
    _bad("endless folders", _deep, "folders deeper than"),
    _bad("sparse giant", _sparse_giant, "too large at 'model.onnx'"),
)

# --- papers --------------------------------------------------------------------------------------


def _appended(relative: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        replaced(relative, (folder / relative).read_bytes() + text.encode())(folder)

    return spoil


def _with_figure(svg: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "roc.svg").write_text(svg)
        _appended("card.toml", FIGURE)(folder)

    return spoil


def _evaluated_at(threshold: float) -> Callable[[Path], None]:
    return evaluated(thresholds={"bright": threshold})


def _gate(rule: str) -> Callable[[Path], None]:
    return edited("package.toml", "[gate]", f"[gate]\n{rule}")


_DEEP = b"a = " + b"[" * 100_000
_DOTS = "a." * 100_000 + "a"

_PAPERS_SPOILT = (
    *(
        _paper(f"{name} of nothing but depth", replaced(name, _DEEP), f"{name} is not valid")
        for name in _PAPERS
    ),
    *(
        _bad(f"{name} without end", replaced(name, b"#" * (MAX_TEXT_BYTES + 1)), "larger than")
        for name in _PAPERS
    ),
    _paper("dotted key", _appended("package.toml", f"\n{_DOTS} = 1\n"), "dots"),
    _paper("dotted table", _appended("card.toml", f"\n[{_DOTS}]\n" + "b = 1\n" * 99), "dots"),
    _paper("no text", replaced("package.toml", b"\xff\xfe\x00"), "not valid TOML"),
    _paper("key twice", _appended("package.toml", "\n[gate]\nlossy = 'allowed'\n"), "not valid TO"),
    _paper("misspelt rule", _gate("age_year = [0, 1]"), "Extra inputs are not permitted"),
    _paper("format of the future", edited("package.toml", "format = 1", "format = 2"), "format"),
    _paper("no number", edited("package.toml", "slope = 1.0", "slope = nan"), "finite number"),
    _paper("exponential pattern", _gate("manufacturers = ['(a+)+$']"), "repeated groups"),
    _paper("polynomial pattern", _gate("kernels = ['.*.*.*.*.*x']"), "for ever"),
    _paper("options without end", _gate(f"kernels = ['{'a?' * 20}{'a' * 20}']"), "for ever"),
    _paper(
        "operating point out of bounds",
        edited("package.toml", "threshold = 0.5", "threshold = 0.9"),
        "must lie within 'allowed'",
    ),
    _paper(
        "finding of another output",
        edited("package.toml", 'tensor = "logits"', 'tensor = "others"'),
        "no output is named",
    ),
    _paper(
        "element that is not there",
        edited("package.toml", 'tensor = "logits"', 'tensor = "logits"\nelement = 7'),
        "has no element 7",
    ),
    _paper(
        "steps that do not fit",
        edited("package.toml", "rows = 8", "rows = 16"),
        "preprocessing ends in",
    ),
    _paper(
        "step of the maker's own",
        edited("package.toml", 'step = "canonical_orientation"', 'step = "run_python"'),
        "run_python",
    ),
    _paper("evaluation of another model", evaluated(model_sha256=_ZEROS), "another model.onnx"),
    _paper("evaluation of another version", evaluated(model_version="9.9.9"), "version 9.9.9"),
    _paper("evaluation at another threshold", _evaluated_at(0.9), "at threshold 0.9"),
    _paper("evaluation with NaN", _evaluated_at(float("nan")), "evaluation.json"),
    _paper("evaluation with infinity", evaluated(positives=float("inf")), "evaluation.json"),
    _paper(
        "key twice in JSON",
        edited("evaluation.json", '"positives": 10', '"positives": 1, "positives": 10'),
        "the same key twice",
    ),
    _paper(
        "number that was not measured",
        edited("card.toml", 'estimates = ["sensitivity"]', 'estimates = ["auc"]'),
        "quotes 'auc'",
    ),
    _paper(
        "number typed by hand",
        edited("card.toml", 'estimates = ["sensitivity"]', "estimates = [0.99]"),
        "card.toml",
    ),
    _paper(
        "text that reads backwards",
        edited("card.toml", 'funding = "None."', 'funding = "\u202eNone."'),
        "control character",
    ),
    _bad(
        "picture with a script",
        _with_figure('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        "roc.svg",
        "FigureError",
    ),
    _bad(
        "picture with entities",
        _with_figure('<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>'),
        "roc.svg",
        "FigureError",
    ),
)

# --- golden tensors ------------------------------------------------------------------------------


def _archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _outputs(content: bytes) -> Callable[[Path], None]:
    return replaced(_OUTPUTS, _archive({"logits.npy": content}))


def _numbers(*values: float) -> Callable[[Path], None]:
    return _outputs(_npy(np.array(values, dtype=np.float32)))


def _header(text: str, content: bytes) -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + content


def _fortran_lie(folder: Path) -> None:
    """The same numbers in another order."""
    levels = np.array([0.1, 0.2, 0.8, 0.9], dtype=np.float32)
    content = _npy(np.ascontiguousarray(np.broadcast_to(levels[:, None, None, None], (4, 1, 8, 8))))
    lie = content.replace(b"'fortran_order': False", b"'fortran_order': True ", 1)
    # One space has moved from behind to before the comma: a header as NumPy writes it.
    lie = lie.replace(b"True , 'shape': (4, 1, 8, 8), } ", b"True, 'shape': (4, 1, 8, 8), }  ", 1)
    replaced(_INPUTS, _archive({"slices.npy": lie}))(folder)


_LIE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
_BOMB = _archive({"logits.npy": bytes(MAX_GOLDEN_BYTES + 1)})

_GOLDEN = (
    _golden("golden bomb", replaced(_OUTPUTS, _BOMB), "unpacks to more than"),
    _golden(
        "golden bomb that hides its size",
        replaced(
            _OUTPUTS,
            _BOMB.replace(struct.pack("<I", MAX_GOLDEN_BYTES + 1), struct.pack("<I", 9_999)),
        ),
        "golden/outputs.npz",
    ),
    _golden("golden pickle", replaced(_OUTPUTS, pickle.dumps(_Payload())), "not a readable .npz"),
    _golden(
        "golden pickle inside",
        _outputs(_npy(np.array([_Payload()], dtype=object))),
        "must hold float32",
    ),
    _golden("golden code", _outputs(_header("__import__('os').abort()", b"")), "must hold float32"),
    _golden("golden doubles", _outputs(_npy(np.zeros(4))), "must hold float32"),
    _golden("golden lie about the shape", _outputs(_header(_LIE, b"1234")), "another size"),
    _bad("golden lie about the order", _fortran_lie, "does not reproduce", "ParityError"),
    _golden("golden NaN", _numbers(1, float("nan"), -1, 1), "NaN or infinity"),
    _golden("golden nothing", _outputs(_npy(np.zeros(0, dtype=np.float32))), "shape"),
    _golden("golden on one side", _numbers(1, 2, 3, 4), "one side of the operating point"),
    _golden("golden of fewer items", _numbers(1, -1), "as many items"),
    _bad("golden of another model", _numbers(9, -9, 9, -9), "does not reproduce", "ParityError"),
    _golden(
        "golden of another tensor",
        replaced(_OUTPUTS, _archive({"scores.npy": b""})),
        "exactly the arrays logits",
    ),
    _golden(
        "golden that climbs out",
        replaced(_OUTPUTS, _archive({"../logits.npy": b""})),
        "exactly the arrays logits",
    ),
    _golden("golden noise", replaced(_INPUTS, b"PK\x03\x04" + b"\xff" * 999), "not a readable"),
)

# --- golden studies ------------------------------------------------------------------------------


def _for_patients(folder: Path) -> None:
    edited("package.toml", "demonstration = true", "demonstration = false")(folder)


def _with_studies(text: str, *files: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for file in files:
            path = folder / "golden/studies" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no DICOM at all")
        replaced("golden/studies.toml", text.encode())(folder)

    return spoil


_BOTH = ("first/1.dcm", "second/1.dcm")

_STUDIES_SPOILT = (
    _golden("no studies, for patients", _for_patients, "only a demonstration may come without"),
    _golden("study without files", _with_studies(_STUDIES, _BOTH[0]), "second has no files"),
    _golden("files without a study", _with_studies(_STUDIES, *_BOTH, "x/1.dcm"), "to no study"),
    _golden(
        "study of another finding",
        _with_studies(_STUDIES.replace('"bright"', '"dark"'), *_BOTH),
        "name each of bright",
    ),
    _paper(
        "study that climbs out",
        _with_studies(_STUDIES.replace('"first"', '"../../.."'), *_BOTH),
        "studies.toml",
    ),
    _paper(
        "study twice",
        _with_studies(_STUDIES.replace('"first"', '"second"'), *_BOTH),
        "the same folder",
    ),
    _paper(
        "study without an outcome",
        _with_studies(_STUDIES.replace('"SUSPECTED"', '"NOT_ANALYSED"'), *_BOTH),
        "another a 'reason'",
    ),
    _golden("study of noise", _with_studies(_STUDIES, *_BOTH), "golden study 'first': "),
)

CORPUS = (*_FILES, *_PAPERS_SPOILT, *_GOLDEN, *_STUDIES_SPOILT, *HOSTILE_MODELS)


def build(package: HostilePackage, good: Path, folder: Path) -> None:
    """Copy the good package and spoil it; ``folder`` is in a folder of its own."""
    shutil.copytree(good, folder)
    package.spoil(folder)
