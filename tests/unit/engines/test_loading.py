from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from engines.errors import PackageError, PackageIntegrityError, PackageSchemaError
from engines.loading import load_package


def test_a_good_package_opens_with_its_papers_and_digests(builder: Any) -> None:
    folder = builder.write()
    package = load_package(folder)
    assert package.manifest.name == "bright_phantom"
    assert package.card.developer.name == "Tests"
    assert package.evaluation.estimates[0].key == "sensitivity"
    assert package.model.path == folder / "model.onnx"
    assert package.model.sha256 == hashlib.sha256(builder.model).hexdigest()
    assert package.digest == hashlib.sha256((folder / "CHECKSUMS").read_bytes()).hexdigest()


def test_the_digest_follows_any_change_of_content(builder: Any) -> None:
    before = load_package(builder.write()).digest
    builder.manifest = builder.manifest.replace("Tests.", "Tests!")
    assert load_package(builder.write()).digest != before


def test_checksums_come_first(builder: Any) -> None:
    folder = builder.write()
    (folder / "package.toml").write_text("no toml at all", encoding="utf-8")
    with pytest.raises(PackageIntegrityError):
        load_package(folder)


@pytest.mark.parametrize(
    "relative",
    [
        "model.onnx",
        "package.toml",
        "card.toml",
        "evaluation.json",
        "golden/inputs.npz",
        "golden/outputs.npz",
    ],
)
def test_a_package_without_one_of_its_parts_is_refused_by_name(builder: Any, relative: str) -> None:
    folder = builder.write()
    (folder / relative).unlink()
    builder.seal()
    with pytest.raises(PackageIntegrityError, match=relative):
        load_package(folder)


@pytest.mark.parametrize("relative", ["package.toml", "card.toml", "evaluation.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"= =", b"[" * 100_000, b'{"a": ' * 10_000, b"a = 1\na = 2", b"null"],
    ids=["empty", "not utf-8", "no syntax", "deep", "deep objects", "twice", "null"],
)
def test_a_file_outside_its_syntax_or_schema_is_refused(
    builder: Any, relative: str, content: bytes
) -> None:
    with pytest.raises(PackageSchemaError, match=relative):
        load_package(builder.replace(relative, content))


@pytest.mark.parametrize("relative", ["package.toml", "card.toml", "evaluation.json"])
def test_a_text_file_that_is_too_large_is_refused(builder: Any, relative: str) -> None:
    with pytest.raises(PackageIntegrityError, match="larger than"):
        load_package(builder.replace(relative, b"#" * (512 * 1024 + 1)))


def test_a_misspelt_key_is_named_with_the_place_to_look(builder: Any) -> None:
    builder.manifest = builder.manifest.replace("contrast =", "contrasts =")
    with pytest.raises(PackageSchemaError, match=r"gate\.contrasts.*docs/model-package\.md"):
        load_package(builder.write())


def test_many_faults_are_counted_instead_of_listed(builder: Any) -> None:
    builder.manifest = "\n".join(f"key_{number} = 1" for number in range(100))
    with pytest.raises(PackageSchemaError, match=r"and \d+ more") as caught:
        load_package(builder.write())
    assert len(str(caught.value)) < 1000


def test_a_number_typed_into_the_card_is_refused(builder: Any) -> None:
    builder.card = builder.card.replace('estimates = ["sensitivity"]', "estimates = [0.99]", 1)
    with pytest.raises(PackageSchemaError, match=r"metrics\.usefulness\.estimates"):
        load_package(builder.write())


def test_a_card_that_quotes_what_was_not_measured_is_refused(builder: Any) -> None:
    builder.card = builder.card.replace('["sensitivity"]', '["auc"]', 1)
    with pytest.raises(PackageSchemaError, match="quotes 'auc'"):
        load_package(builder.write())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model_sha256", "0" * 64, "another model.onnx"),
        ("model_version", "1.2.4", "of version 1.2.4"),
        ("thresholds", {"bright": 0.45}, "measured at threshold 0.45"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(
    builder: Any, key: str, value: object, words: str
) -> None:
    builder.evaluation = {key: value}
    with pytest.raises(PackageSchemaError, match=words):
        load_package(builder.write())


@pytest.mark.parametrize(
    "estimate",
    [
        {"value": 0.5},
        {"value": 1.5, "upper": 1.5},
        {"value": float("nan")},
        {"cases": 0},
        {"note": "good"},
    ],
    ids=str,
)
def test_an_impossible_estimate_is_refused(builder: Any, estimate: dict[str, object]) -> None:
    good = {"key": "sensitivity", "label": "S", "value": 0.9, "lower": 0.6, "upper": 1, "cases": 9}
    builder.evaluation = {"estimates": [good | estimate]}
    with pytest.raises(PackageSchemaError, match=r"evaluation\.json"):
        load_package(builder.write())


def test_two_estimates_of_one_key_are_refused(builder: Any) -> None:
    good = {"key": "sensitivity", "label": "S", "value": 0.9, "lower": 0.6, "upper": 1, "cases": 9}
    builder.evaluation = {"estimates": [good, good]}
    with pytest.raises(PackageSchemaError, match="same 'key'"):
        load_package(builder.write())


def test_every_fault_is_the_makers_and_says_so_by_its_type(builder: Any) -> None:
    folder = builder.replace("evaluation.json", json.dumps([1, 2]).encode())
    with pytest.raises(PackageError):
        load_package(folder)
