"""Settings: order of the sources, refusals, one-line errors, and what the digest covers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mpc_ray.config import AGREED, UNBUILT, Config, load
from mpc_ray.errors import ConfigError

EXAMPLE = Path(__file__).parents[1] / "configs" / "settings.example.yaml"


def refused(path: Path | None = None, environ: dict[str, str] | None = None, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ or {}, **flags)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.remedy
    return text


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = write(tmp_path, "timeout_s: 1\nthreads: 2\nlauncher: threads\n")
    config = load(path, environ={"MPC_TIMEOUT_S": "3", "MPC_THREADS": "4"}, timeout_s=5)
    assert (config.timeout_s, config.threads, config.launcher, config.tls) == (5.0, 4, "threads", True)


def test_a_flag_that_is_none_was_not_given() -> None:
    assert load(environ={"MPC_THREADS": "4"}, threads=None).threads == 4


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "threads: 3\n")
    assert load(environ={"MPC_CONFIG": str(path)}).threads == 3


def test_example_file_holds_the_defaults() -> None:
    assert load(EXAMPLE, environ={}) == Config()
    optional = {name for name, field in Config.model_fields.items() if field.default is None}
    assert set(yaml.safe_load(EXAMPLE.read_text())) == set(Config.model_fields) - optional - {"detached"}


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"MPC_PROTOCOL": "semi_honest_3pc"}, "protocol", "semi_honest_3pc"),
        ({"MPC_SECURITY_LEVEL": "128"}, "security_level", 128),
        ({"MPC_GPU_ENABLED": "true"}, "device", "cuda"),
        ({"MPC_GPU_ENABLED": "0"}, "device", "cpu"),
        ({"MPC_TLS_ENABLED": "false", "MPC_LAUNCHER": "threads"}, "tls", False),
        ({"MPC_QUANTUM_PLANNING": "false"}, "quantum_planning", False),
        ({"MPC_BUCKETS": "8, 24,512"}, "buckets", (8, 24, 512)),
        ({"MPC_THREADS": ""}, "threads", 1),
        ({"MPC_PRF": "chacha20"}, "stream_cipher", "chacha20"),
        ({}, "stream_cipher", "aes128ctr"),
        ({"MPC_GPU_ENABLED": "true"}, "stream_cipher", "chacha20"),
        ({"MPC_GPU_ENABLED": "true", "MPC_PRF": "aes128ctr"}, "stream_cipher", "aes128ctr"),
        ({"MPC_DEVICE": "cuda", "MPC_GPU_MEMORY_FRACTION": "0.25"}, "gpu_memory_fraction", 0.25),
        ({"MPC_TEST_POSTGRES": "off", "PATH": "/bin"}, "threads", 1),
    ],
)
def test_environment(environ: dict[str, str], field: str, value: object) -> None:
    assert getattr(load(environ=environ), field) == value


@pytest.mark.parametrize("key", sorted(UNBUILT))
def test_what_is_not_built_is_refused_everywhere(key: str, tmp_path: Path) -> None:
    name = f"MPC_{key.upper()}"
    assert f"remove {name}" in refused(environ={name: "1"})
    assert "not built yet" in refused(write(tmp_path, f"{key}: 1\n"))
    assert "not built yet" in refused(**{key: 1})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"MPC_PROTOCOL": "aby4"}, "MPC_PROTOCOL (environment): must be 'semi_honest_3pc'"),
        ({"MPC_SECURITY_LEVEL": "256"}, "MPC_SECURITY_LEVEL (environment): must be 128"),
        ({"MPC_GPU_ENABLED": "maybe"}, "MPC_GPU_ENABLED: must be true or false"),
        ({"MPC_QUANTUM_PLANNING": "true"}, "quantum-inspired solvers are not built yet"),
        ({"MPC_TIMEOUT": "3"}, "MPC_TIMEOUT (environment) is not a setting (did you mean MPC_TIMEOUT_S?)"),
        ({"MPC_XYZZY": "3"}, "MPC_XYZZY (environment) is not a setting (remove MPC_XYZZY)"),
        ({"MPC_TIMEOUT_S": "0"}, "MPC_TIMEOUT_S (environment)"),
        ({"MPC_TIMEOUT_S": "nan"}, "MPC_TIMEOUT_S (environment)"),
        ({"MPC_THREADS": "1.5"}, "MPC_THREADS (environment)"),
        ({"MPC_BUCKETS": "16,16"}, "each larger than the one before"),
        ({"MPC_BUCKETS": "0,16"}, "whole numbers from 1 upwards"),
        ({"MPC_BUCKETS": "16,x"}, "MPC_BUCKETS (environment)"),
        ({"MPC_NAME": "no spaces please"}, "MPC_NAME (environment)"),
        ({"MPC_DEVICE": "cpu", "MPC_GPU_ENABLED": "true"}, "sets device, which is set there already"),
        ({"MPC_NUM_GPUS": "1", "MPC_LAUNCHER": "threads"}, "set launcher to ray"),
        ({"MPC_TLS_ENABLED": "false", "MPC_LAUNCHER": "processes"}, "launcher processes always uses TLS"),
        ({"MPC_NUM_GPUS": "1", "MPC_DEVICE": "cuda", "MPC_LAUNCHER": "threads"}, "set launcher to ray"),
        ({"MPC_DETACHED": "true"}, "give a name"),
        ({"MPC_PRF": "rc4"}, "MPC_PRF (environment)"),
        ({"MPC_DEVICE": "cuda", "MPC_PROTOCOL": "aby3"}, "aby3 has no kernels for cuda; set device to cpu"),
        ({"MPC_GPU_MEMORY_FRACTION": "0.5"}, "gpu_memory_fraction limits a GPU; set device to cuda"),
        ({"MPC_GPU_MEMORY_FRACTION": "0", "MPC_DEVICE": "cuda"}, "MPC_GPU_MEMORY_FRACTION (environment)"),
        ({"MPC_GPU_MEMORY_FRACTION": "1.5", "MPC_DEVICE": "cuda"}, "MPC_GPU_MEMORY_FRACTION (environment)"),
        ({"MPC_RAY_ADDRESS": "10.0.0.1:6379", "MPC_LAUNCHER": "threads"}, "the launcher is not ray"),
    ],
)
def test_refusals(environ: dict[str, str], said: str) -> None:
    assert said in refused(environ=environ)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threads: [", "not valid YAML"),
        ("- threads", "must hold `setting: value` lines"),
        ("1: 2", "must hold `setting: value` lines"),
        ("thread: 2", "did you mean threads?"),
        ("buckets: []", "whole numbers"),
        ("buckets: 16", "buckets"),
        ("ray_address: ''", "ray_address"),
    ],
)
def test_bad_files(text: str, said: str, tmp_path: Path) -> None:
    assert said in refused(write(tmp_path, text))


def test_unreadable_files(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: \xe9\n")
    assert "is not UTF-8" in refused(path)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert load(write(tmp_path, "# nothing\n"), environ={}) == Config()


def test_errors_do_not_repeat_what_was_typed() -> None:
    assert "hunter2" not in refused(environ={"MPC_THREADS": "hunter2"})


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Config().threads = 2  # type: ignore[misc]


def test_digest_covers_exactly_what_parties_must_agree_on() -> None:
    changed = {
        "tls": False,
        "buckets": (16, 32),
        "range_check": False,
        "launcher": "threads",
        "device": "cuda",
        "prf": "chacha20",  # a digest of HELLO of its own
        "shadow": True,
        "variant": "rounds",
        "rtt_ms": 20.0,
        "mbit": 100.0,
        "timeout_s": 1.0,
        "threads": 2,
        "ray_address": "10.0.0.1:6379",
        "name": "n",
    }
    for field, value in changed.items():
        base = {"launcher": "threads"} if field == "tls" else {}  # the others cannot go without
        differs = Config(**base, **{field: value}).digest() != Config(**base).digest()
        assert differs == (field in AGREED), field


def test_digest_is_32_bytes_and_the_same_in_every_process() -> None:
    digest = Config().digest()
    assert digest.hex() == "ca8f650ac55161e28f9df9cc4ddb51576c0c0e365f100f5ac5cea866d633c1b5"
