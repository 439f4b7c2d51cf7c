"""Every model and text that cannot be computed: one line, a remedy, an exit code, before or after the parties start."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


NAME = "encoder.layer.1.output.dense.weight"


def test_no_folder(cli: Any, fast: Any) -> None:
    cli("embed", "a", "--model", "nowhere", *fast).one_line_error(3, "no model folder at nowhere")


def test_a_folder_without_config(cli: Any, fast: Any, broken: Path) -> None:
    (broken / "config.json").unlink()
    cli("embed", "a", "--model", broken, *fast).one_line_error(3, "no config.json")


def test_an_unknown_architecture(cli: Any, fast: Any, broken: Path) -> None:
    edit_config(broken, model_type="llama", architectures=["LlamaForCausalLM"])
    cli("embed", "a", "--model", broken, *fast).one_line_error(3, "LlamaForCausalLM")


def test_a_missing_tensor(cli: Any, fast: Any, broken: Path) -> None:
    edit_tensors(broken, lambda tensors: tensors.pop(NAME))
    cli("embed", "a", "--model", broken, *fast).one_line_error(3, NAME, "missing")


def test_a_tensor_of_a_wrong_shape(cli: Any, fast: Any, broken: Path) -> None:
    edit_tensors(broken, lambda tensors: tensors.update({NAME: np.zeros((3, 5), np.float32)}))
    cli("demo", "a", "--model", broken, *fast).one_line_error(3, NAME, "shape (3, 5)")


def test_a_tensor_that_is_not_finite(cli: Any, fast: Any, broken: Path) -> None:
    edit_tensors(broken, lambda tensors: tensors.update({NAME: tensors[NAME] * np.float32("nan")}))
    cli("demo", "a", "--model", broken, *fast).one_line_error(3, NAME, "not finite")


def test_no_tokenizer(cli: Any, fast: Any, broken: Path) -> None:
    (broken / "tokenizer.json").unlink()
    cli("demo", "a", "--model", broken, *fast).one_line_error(3, "tokenizer.json")


def test_an_empty_text(cli: Any, fast: Any, tiny: Path) -> None:
    cli("embed", "a", " ", "--model", tiny, *fast).one_line_error(2, "text 1 is empty")


def test_no_text(own_process: Any) -> None:
    own_process("embed").one_line_error(2, "standard input holds no text")


def test_a_text_without_tokens(cli: Any, fast: Any, tiny: Path) -> None:
    cli("embed", "\u200b\x01", "--model", tiny, *fast).one_line_error(2, "text 0 has no tokens")


def test_a_text_longer_than_the_model_allows(cli: Any, fast: Any, tiny: Path) -> None:
    ended = cli("embed", "short", "z" * 80, "--model", tiny, *fast)
    ended.one_line_error(2, "text 1 has 82 tokens, the model takes 64")
    assert ended.err.endswith("what to do: split it, or --truncate\n")
    assert "starting" not in ended.err  # refused before any party was started
    assert "zzz" not in ended.err


def test_asking_for_cuda_where_there_is_none(cli: Any, tiny: Path, fast: Any) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    cli("embed", "a", "--model", tiny, "--device", "cuda", *fast).one_line_error(6, "cuda")


def test_a_cluster_that_is_not_there(own_process: Any, tiny: Path) -> None:
    pytest.importorskip("ray")
    ended = own_process("embed", "a", "--model", tiny, "--ray-address", "127.0.0.1:1")
    ended.one_line_error(5, "127.0.0.1:1")


@pytest.mark.parametrize("name", ["r.txt", "no/such/folder/r.html", "folder.html"])
def test_a_report_that_cannot_be_written(cli: Any, tiny: Path, fast: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.html").mkdir()
    ended = cli("demo", "a", "--model", tiny, "--report", name, *fast)
    ended.one_line_error(2, name)
    assert "starting" not in ended.err


def test_outputs_that_contradict(cli: Any, tiny: Path, fast: Any) -> None:
    cli("embed", "a", "--model", tiny, "--output", "v.csv", *fast).one_line_error(2, "v.csv")
    cli("embed", "a", "--model", tiny, "--output", "-", "--json", *fast).one_line_error(2, "--json")


def test_a_calibration_file_that_is_not_there(cli: Any, tiny: Path, fast: Any) -> None:
    cli("embed", "a", "--model", tiny, "--calibrate", "mine.txt", *fast).one_line_error(2, "mine.txt")


def test_a_port_in_use(cli: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpc_ray.party_settings import PartySettings

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("mpc_ray.session.PartySettings", partial(PartySettings, port=port))
        cli("embed", "a", "--model", tiny, "--launcher", "threads").one_line_error(
            75, f"port {port}", "in use"
        )


def test_a_peer_that_never_comes(cli: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpc_ray.party import PartyServer

    connect = PartyServer._connect

    def stay_away(server: PartyServer, addresses: Any, timeout_s: float) -> Any:
        if server._settings.me == 2:
            time.sleep(4)
            return {"ready": True}
        return connect(server, addresses, timeout_s)

    monkeypatch.setattr(PartyServer, "_connect", stay_away)
    monkeypatch.setattr("mpc_ray.session.START_TIMEOUT_S", 2.0)
    cli("embed", "a", "--model", tiny, "--launcher", "threads").one_line_error(5, "party 2")


def test_a_certificate_of_another_authority(cli: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpc_ray.trust.certs import SessionAuthority

    sign, other = SessionAuthority.sign, SessionAuthority()

    def stray(authority: SessionAuthority, request: bytes, name: str, **rest: Any) -> bytes:
        return sign(other if name == "party-1" else authority, request, name, **rest)

    monkeypatch.setattr(SessionAuthority, "sign", stray)
    cli("embed", "a", "--model", tiny, "--launcher", "threads").one_line_error(
        5, "certificate", "issued by another authority"
    )
