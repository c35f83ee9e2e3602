from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config.loading import SECRETS, load_settings, parse_settings, read_toml
from edge_runtime.config.settings import Settings
from edge_runtime.errors import SettingsError

VARIABLE = "EDGE_TRIAGE_TELEMETRY_PASSWORD"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "edge-triage.toml"


def _refusal(tables: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(tables, {})
    return str(caught.value)


def test_an_empty_file_means_the_defaults(file: Path) -> None:
    file.write_text("", encoding="utf-8")
    assert load_settings(file, {}) == Settings()


def test_a_file_sets_what_it_names_and_leaves_the_rest(file: Path) -> None:
    file.write_text(
        '[device]\nname = "CT 2"\n[[node.callers]]\nae_title = "CT01"\naddress = "192.0.2.0/24"\n',
        encoding="utf-8",
    )
    settings = load_settings(file, {})
    assert settings.device.name == "CT 2"
    assert settings.node.callers[0].ae_title == "CT01"
    assert settings.web == Settings().web


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"nod": {}}, "nod: unknown key; did you mean 'node'?"),
        ({"node": {"prt": 1}}, "node.prt: unknown key; did you mean 'port'?"),
        (
            {"node": {"callers": [{"ae_title": "A", "adress": "::1"}]}},
            "node.callers.0.adress: unknown key; did you mean 'address'?",
        ),
        (
            {"courier": {"retry": {"first_delay": 1}}},
            "courier.retry.first_delay: unknown key; did you mean 'first_delay_s'?",
        ),
        (
            {
                "outputs": {
                    "structured_report": {
                        "peer": {"ae_title": "P", "host": "p", "port": 1, "prot": 2}
                    }
                }
            },
            "outputs.structured_report.peer.prot: unknown key; did you mean 'port'?",
        ),
        ({"xyzzy": 1}, "xyzzy: unknown key; see `edge-triage config schema`"),
    ],
)
def test_an_unknown_key_at_any_level_names_the_nearest_known_one(
    tables: dict[str, Any], line: str
) -> None:
    assert _refusal(tables) == line


def test_a_rule_of_ours_is_told_in_our_words_alone() -> None:
    line = "node.journal_bytes: a journal has at least 4194304 bytes; 0 is none"
    assert _refusal({"node": {"journal_bytes": 5}}) == line


def test_every_mistake_is_listed_at_once_a_line_each() -> None:
    text = _refusal(
        {"node": {"port": 0, "prt": 1}, "device": {"heartbeat_s": 99}, "web": {"bind": "x"}}
    )
    assert [line.split(":")[0] for line in text.splitlines()] == [
        "device.heartbeat_s",
        "node.port",
        "node.prt",
        "web.bind",
    ]


@pytest.mark.parametrize(
    ("tables", "lines"),
    [
        (
            {"engine": {"preference": ["tensort"]}},
            [
                (
                    "engine.preference.0: Input should be 'onnxruntime', 'onnxruntime-cuda', "
                    "'onnxruntime-tensorrt', 'tensorrt' or 'tensorrt-rtx'"
                )
            ],
        ),
        (
            {"engine": {"gpu": {"cuda_libraries": ["cupy"]}}},
            ["engine.gpu.cuda_libraries.0: Input should be 'pycuda' or 'cuda-bindings'"],
        ),
        (
            {"engine": {"preference": []}},
            ["engine.preference: Tuple should have at least 1 item after validation, not 0"],
        ),
        (
            {"engine": {"preference": [], "gpu": {"cuda_libraries": ["cupy"]}}},
            [
                "engine.preference: Tuple should have at least 1 item after validation, not 0",
                "engine.gpu.cuda_libraries.0: Input should be 'pycuda' or 'cuda-bindings'",
            ],
        ),
    ],
)
def test_a_list_with_a_fault_in_it_is_not_called_too_short_as_well(
    tables: dict[str, Any], lines: list[str]
) -> None:
    assert _refusal(tables).splitlines() == lines


def test_a_key_with_control_characters_forges_no_line_of_the_error() -> None:
    assert len(_refusal({"a\nnode.port: fine\x1b[2J": 1}).splitlines()) == 1


@pytest.mark.parametrize("value", [5, "text", [1], [{"password": "x"}], True, 1.5])
def test_a_value_where_a_section_belongs_is_an_error_with_its_name(value: object) -> None:
    for section in Settings.model_fields:
        with pytest.raises(SettingsError, match=rf"^{section}"):
            parse_settings({section: value}, {VARIABLE: "secret"})


def test_a_secret_in_the_file_is_refused_and_the_variable_named() -> None:
    text = _refusal({"telemetry": {"password": "CANARY-SECRET"}})
    assert VARIABLE in text
    assert "CANARY" not in text


def test_a_secret_comes_from_the_environment() -> None:
    settings = parse_settings({"telemetry": {"host": "broker"}}, {VARIABLE: "CANARY-SECRET"})
    assert settings.telemetry.password is not None
    assert settings.telemetry.password.get_secret_value() == "CANARY-SECRET"
    assert settings.telemetry.host == "broker"


def test_a_secret_shows_in_no_error() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings({"node": {"port": 0}}, {VARIABLE: "CANARY-SECRET" * 200})
    assert "telemetry.password" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_nothing_but_secrets_comes_from_the_environment() -> None:
    others = {"EDGE_TRIAGE_NODE_PORT": "1", "NODE__PORT": "2", "EDGE_TRIAGE_DEVICE_NAME": "x"}
    assert parse_settings({}, others) == Settings()
    assert set(SECRETS) == {VARIABLE}


def test_the_environment_of_the_process_is_the_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "from-outside")
    file.write_text("", encoding="utf-8")
    password = load_settings(file).telemetry.password
    assert password is not None
    assert password.get_secret_value() == "from-outside"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe[\x00n\x00",
        b"[node\n",
        b"a = " + b"[" * 20_000,
        b"a" + b".a" * 5_000 + b" = 1",
        b"a = " + b"{a = " * 5_000,
        b"a = " + b"9" * 5_000,
        b"a = 1979-13-45",
        b"[a]\n[a]\n",
        b"a = 1\na = 2\n",
        b"\x00",
        b"#" * 65_537,
    ],
    ids=lambda content: content[:8].hex(),
)
def test_a_hostile_file_is_a_settings_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError):
        load_settings(file, {})


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(SettingsError, match="larger than"):
        read_toml(Path("/dev/zero"))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="Is a directory"):
        read_toml(tmp_path)


def _toml_values() -> st.SearchStrategy[Any]:
    plain = st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=8) | _known_keys(), inner, max_size=3)
        ),
        max_leaves=8,
    )


def _known_keys() -> st.SearchStrategy[str]:
    return st.sampled_from(["port", "ae_title", "peer", "callers", "password", "retry", "bind"])


@given(
    st.dictionaries(
        st.sampled_from(sorted(Settings.model_fields)) | st.text(max_size=8),
        _toml_values(),
        max_size=4,
    )
)
def test_whatever_a_file_says_the_answer_is_settings_or_a_settings_error(
    tables: dict[str, Any],
) -> None:
    with contextlib.suppress(SettingsError):
        assert isinstance(parse_settings(tables, {}), Settings)
