"""The gateway under uvicorn with TLS: slow, large and broken callers, its own end, a renewed certificate."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateways import Fake, Federation, api_key, body, config, federation, problem, public_certificate

from mpc_ray.errors import ConfigError, NotNow
from mpc_ray.listening import door as door_module
from mpc_ray.serve.config import GatewayConfig, Https
from mpc_ray.serve.host import Server, application, hosted, tls_context


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("federation"), ("eu",))


@pytest.fixture(scope="module")
def fake() -> Fake:
    return Fake("eu")


@pytest.fixture(scope="module")
def gateway(made: Federation, fake: Fake) -> Iterator[Server]:
    with hosted(config(made, connections=40), {"eu": fake}) as server:
        yield server


def trusting(of: Federation) -> ssl.SSLContext:
    """A caller's context that knows the federation's authority; the gateway's certificate names no address."""
    context = ssl.create_default_context(cafile=str(of.folder / "ca.pem"))
    context.check_hostname = False
    return context


def client(of: Federation, server: Server) -> httpx.Client:
    headers = {"authorization": f"Bearer {api_key(of)}"}
    return httpx.Client(base_url=server.url, verify=trusting(of), headers=headers, timeout=10)


def connect(of: Federation, server: Server) -> ssl.SSLSocket:
    host, port = server.url.removeprefix("https://").rsplit(":", 1)
    raw = socket.create_connection((host, int(port)), timeout=5)
    return trusting(of).wrap_socket(raw, server_hostname="gateway")


def closed_after(line: socket.socket, patience: float = 5.0) -> tuple[float, bytes]:
    """Seconds until the other end closed, and what it said."""
    begun, said = time.monotonic(), b""
    line.settimeout(patience)
    try:
        while piece := line.recv(65536):
            said += piece
    except TimeoutError:
        pytest.fail("it was not closed")
    except (ConnectionError, ssl.SSLError):
        pass
    return time.monotonic() - begun, said


def test_over_tls(made: Federation, gateway: Server) -> None:
    with client(made, gateway) as http:
        answer = http.post("/v1/private/infer", json=body(made))
        assert answer.status_code == 200
        assert "server" not in answer.headers and "strict-transport-security" in answer.headers
    with pytest.raises(httpx.ConnectError):
        httpx.get(gateway.url, verify=True)
    plain = socket.create_connection(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1])), timeout=5)
    plain.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"HTTP" not in closed_after(plain)[1]


def test_chunked_bodies_stop_at_the_limit(made: Federation, gateway: Server, fake: Fake) -> None:
    before = len(fake.jobs)
    with connect(made, gateway) as line:
        line.sendall(
            b"POST /v1/private/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer " + api_key(made).encode() + b"\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        begun, cut = time.monotonic(), False
        while not cut and time.monotonic() - begun < 10:
            try:
                line.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            except OSError:
                cut = True
        assert cut and time.monotonic() - begun < 5
    with client(made, gateway) as http:
        answer = http.post(
            "/v1/private/infer",
            content=(b" " * 50_000 for _ in range(5)),
            headers={"content-type": "application/json"},
        )
        problem(answer, 413, "too_large")
    assert len(fake.jobs) == before


def test_slow_headers_are_cut(made: Federation, gateway: Server) -> None:
    with connect(made, gateway) as silent:
        assert closed_after(silent)[0] < 2
    with connect(made, gateway) as line:

        def drip() -> None:
            try:
                line.sendall(b"GET /v2/health/live HTTP/1.1\r\n")
                for index in range(100):
                    line.sendall(b"x-%d: y\r\n" % index)
                    time.sleep(0.05)
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        assert closed_after(line)[0] < 2
        thread.join()


def test_slow_bodies_are_answered_408_and_cut(made: Federation, gateway: Server) -> None:
    with connect(made, gateway) as line:
        line.sendall(
            b"POST /v1/private/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer " + api_key(made).encode() + b"\r\ncontent-length: 1000\r\n\r\n{"
        )
        seconds, said = closed_after(line)
        assert seconds < 2 and said.startswith(b"HTTP/1.1 408") and b"slow_body" in said


def test_a_body_that_nobody_reads_keeps_no_connection(made: Federation, gateway: Server) -> None:
    with connect(made, gateway) as line:
        line.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")

        def drip() -> None:
            try:
                for _ in range(100):
                    line.sendall(b"x")
                    time.sleep(0.05)
            except OSError:
                pass

        thread = threading.Thread(target=drip)
        thread.start()
        assert closed_after(line)[0] < 2
        thread.join()


def test_what_is_no_http(made: Federation, gateway: Server) -> None:
    for sent in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ):
        with connect(made, gateway) as line:
            try:
                line.sendall(sent)
            except OSError:
                pass
            said = closed_after(line)[1]
            assert b" 500 " not in said and b"Traceback" not in said
    with client(made, gateway) as http:
        assert http.get("/v2/health/live").status_code == 200


def test_connections_are_bounded(made: Federation, gateway: Server) -> None:
    lines = []
    try:
        for _ in range(60):
            host, port = gateway.url.removeprefix("https://").rsplit(":", 1)
            lines.append(socket.create_connection((host, int(port)), timeout=5))
        time.sleep(0.2)
        assert len(gateway.server_state.connections) <= 40
    finally:
        for line in lines:
            line.close()


def silent(server: Server, source: str = "127.0.0.1") -> socket.socket:
    """A connection that says nothing."""
    host, port = server.url.removeprefix("https://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=5, source_address=(source, 0))


def is_open(line: socket.socket) -> bool:
    line.setblocking(False)
    try:
        return bool(line.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_silent_connections_are_counted_and_keep_nobody_out(
    made: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of the address that has most of them go; another address's stay."""
    monkeypatch.setattr(door_module.Door.__init__, "__kwdefaults__", {"most": 6})
    with hosted(config(made, header_s=30.0), {"eu": Fake("eu")}) as server:
        (door,) = server.servers
        lines = [silent(server, "127.0.0.2") for _ in range(2)]
        try:
            for _ in range(30):
                lines.append(silent(server))
            with client(made, server) as http:
                assert http.get("/v2/health/live").status_code == 200
            end = time.monotonic() + 5
            while sum(map(is_open, lines)) > 6 and time.monotonic() < end:
                time.sleep(0.02)
            assert [is_open(line) for line in lines[:2]] == [True, True]
            assert sum(map(is_open, lines)) <= 6
            assert door.waiting <= 6  # type: ignore[attr-defined]
        finally:
            for line in lines:
                line.close()


def test_idle_connections_of_one_address_keep_nobody_out(made: Federation) -> None:
    """They have passed TLS; a request that is under way is not among those that have to go."""
    fake = Fake("eu", seconds=1.0)
    with hosted(config(made, header_s=30.0, connections=6), {"eu": fake}) as server:
        lines, answers = [], []
        with client(made, server) as http:
            asked = threading.Thread(
                target=lambda: answers.append(http.post("/v1/private/infer", json=body(made)).status_code)
            )
            asked.start()
            while not fake.jobs:
                time.sleep(0.01)
            try:
                for _ in range(12):
                    raw = silent(server, "127.0.0.2")
                    lines.append(trusting(made).wrap_socket(raw, server_hostname="gateway"))
                with client(made, server) as other:
                    assert other.get("/v2/health/live").status_code == 200
                assert len(server.server_state.connections) <= 6
                asked.join()
                assert answers == [200]
            finally:
                for line in lines:
                    line.close()


def test_a_process_may_open_as_many_files_as_it_needs() -> None:
    """In a process of its own: a limit that is lowered stays so."""
    program = (
        "import logging, resource; logging.basicConfig(format='%(message)s');"
        "from mpc_ray.channel.descriptors import allow; n = resource.RLIMIT_NOFILE;"
        "resource.setrlimit(n, (100, 1000));"
        "print(allow(500, 'x.connections'), resource.getrlimit(n)[0], allow(1, 'y'), resource.getrlimit(n)[0]);"
        "print(allow(5000, 'x.connections'), resource.getrlimit(n)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True", "756", "True", "756", "False", "1000"]
    assert "x.connections asks for 5256" in done.stderr and "y" not in done.stderr.split()


def test_the_end_finishes_what_is_under_way(made: Federation) -> None:
    fake = Fake("eu", seconds=0.5)
    with hosted(config(made, drain_s=0.3), {"eu": fake}) as server, client(made, server) as http:
        answers: list[int] = []

        def ask() -> None:
            with client(made, server) as own:
                answers.append(own.post("/v1/private/infer", json=body(made)).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        server.drain()
        problem(http.get("/v2/health/ready"), 503, "draining")
        late = threading.Thread(target=ask)
        late.start()
        for thread in (*threads, late):
            thread.join()
        assert answers == [200] * 4, "requests between 'not ready' and the end are served too"
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, verify=trusting(made))


def test_a_renewed_certificate_is_taken_up(made: Federation, tmp_path: Path) -> None:
    first, second = public_certificate(tmp_path, "one"), public_certificate(tmp_path, "two")
    files = Https(certificate=tmp_path / "public.pem", key=tmp_path / "public.key")
    files.certificate.write_bytes(first[0].read_bytes())
    files.key.write_bytes(first[1].read_bytes())
    settings = config(made).model_copy(update={"https": files})
    with hosted(settings, {"eu": Fake("eu")}) as server:
        host, port = server.url.removeprefix("https://").rsplit(":", 1)
        before = ssl.get_server_certificate((host, int(port)))
        files.key.write_bytes(second[1].read_bytes())
        files.certificate.write_bytes(second[0].read_bytes())
        server._renew()
        assert ssl.get_server_certificate((host, int(port))) != before


def test_what_cannot_start_says_why(made: Federation, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        tls_context(tmp_path / "none.pem", tmp_path / "none.key")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = config(made).model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(NotNow, match="cannot listen"), hosted(busy, {"eu": Fake("eu")}):
            pass

    class Failing(Fake):
        async def start(self) -> None:
            raise ConfigError("this set cannot be led", remedy="lead another")

    with pytest.raises(ConfigError, match="cannot be led"), hosted(config(made), {"eu": Failing("eu")}):
        pass


def test_settings_from_a_file(made: Federation, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps({"folder": "gw", "port": 0, "sets": [{"name": "eu"}], "limits": {"batch": 2}}))
    read = GatewayConfig.load(file)
    assert read.folder == tmp_path / "gw" and read.limits.batch == 2
    assert read.digest() != config(made).digest()
    for text, wrong in [
        ("{folder: gw, prot: 1}", r"prot is not a setting \(did you mean port\?\)"),
        ("{folder: gw, limits: {bodybytes: 1}}", "limits.bodybytes is not a setting"),
        ("{folder: gw, port: 70000}", "port"),
        ("{folder: gw, sets: [{name: eu}, {name: eu}]}", "named twice"),
        ("{folder: gw, limits: {timeout_s: 61}}", "timeout_s is above"),
        ("{port: 1}", "folder"),
        ("[]", "must hold"),
        ("{", "YAML"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=wrong):
            GatewayConfig.load(file)
    with pytest.raises(ConfigError, match="No such file"):
        GatewayConfig.load(tmp_path / "none.yaml")


def test_a_set_that_the_directory_lacks_is_named(made: Federation) -> None:
    settings = config(made).model_copy(
        update={"sets": GatewayConfig(folder=made.folder, sets=[{"name": "mars"}]).sets}
    )
    with pytest.raises(ConfigError, match="no whole set mars"):
        application(settings)


def test_memory_returns_after_large_bodies(made: Federation, gateway: Server) -> None:
    """100 bodies at the limit leave nothing behind: what is held is bounded by what is under way."""
    import gc

    async def test() -> int:
        context = trusting(made)
        headers = {"authorization": f"Bearer {api_key(made)}", "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=gateway.url, verify=context, headers=headers) as http:
            await asyncio.gather(*(http.post("/v1/private/infer", content=b" " * 190_000) for _ in range(30)))
        gc.collect()
        return gateway._gateway.inference.under_way

    found: Any = asyncio.run(test())
    assert found == 0
    assert not gateway._gateway.inference._tasks
