"""A machine for ``ray up`` that is this one: a server for ssh on loopback, with a home and programs of its own.

Whatever the cluster files run there happens in one folder: their paths (/opt, /etc, /var) are moved into it,
``sudo``, ``systemctl`` and their like write down what they were asked, and ``ray`` starts with that folder and free
ports and stops nothing but what was started there.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mpc_ray.bench.ports import free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MOVED = {
    "/opt/mpc-ray": "opt",
    "/etc/profile.d": "profile.d",
    "/etc/systemd/system": "systemd",
    "/etc/mpc-ray": "etc",
    "/var/lib/mpc-ray": "var",
}
GRACE_S = 2.0
RAY = (
    "from ray.autoscaler._private import commands; commands.POLL_INTERVAL = 0.5\n"
    "from ray.scripts.scripts import main; main()"
)


@dataclass(frozen=True)
class Machine:
    """``folder`` holds everything; ``home`` is that of the machine's user, ``desk`` the operator's checkout."""

    folder: Path
    ssh_port: int
    ray_port: int

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def desk(self) -> Path:
        return self.folder / "desk"

    @property
    def key(self) -> Path:
        return self.folder / "ssh" / "client"

    def moved(self, text: str) -> str:
        """A cluster file whose paths outside the home lead into the folder."""
        for path, name in MOVED.items():
            text = text.replace(path, str(self.folder / name))
        return text

    def said(self) -> str:
        """What stand-ins were asked to do, one command a line."""
        path = self.folder / "said"
        return path.read_text() if path.exists() else ""

    def ray(self, *words: str, timeout_s: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
        """The operator's `ray` command, run at the desk. It looks at clouds each half second instead of every five."""
        return subprocess.run(
            [sys.executable, "-P", "-c", RAY, *words],
            cwd=self.desk,
            env=self.environ(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def environ(self, more: dict[str, str]) -> dict[str, str]:
        """Nothing of the tester's own: neither home nor cloud credentials."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
        return kept | {
            "PATH": f"{self.folder / 'operator'}:{BIN}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "operator"),
            "TMPDIR": str(self.folder / "tmp"),
            "RAY_TMPDIR": str(self.folder / "tmp"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "operator" / ".mpc-ray" / "token"),
            **more,
        }

    def processes(self) -> list[psutil.Process]:
        """What runs for this machine."""
        return ours(str(self.folder))


def ours(folder: str) -> list[psutil.Process]:
    """Processes that name the folder in their arguments, and all their children (workers rename themselves)."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(f"{folder}/" in word for word in process.cmdline()):
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return list(found.values())


def end(processes: list[psutil.Process]) -> None:
    """Ask them to stop; after two seconds, make them."""
    for process in processes:
        with _gone_is_fine():
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in alive:
        with _gone_is_fine():
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_S)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return


def free_port() -> int:
    return free_ports(1)[0]


def need(*programs: str) -> None:
    """Skip where Debian's openssh-server or rsync is missing; in CI they have to be there."""
    missing = [name for name in programs if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    if missing:
        words = f"needs {', '.join(missing)}; on Debian: apt-get install openssh-server rsync"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine that listens for ssh. Afterwards nothing of it runs, and its folder is gone."""
    need("sshd", "ssh", "ssh-keygen", "rsync")
    folder = Path(tempfile.mkdtemp(prefix="mpcup", dir="/tmp"))
    made = Machine(folder, *free_ports(2))
    try:
        _furnish(made)
        with (folder / "ssh" / "log").open("w") as log:
            server = subprocess.Popen(
                ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "ssh" / "config")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            _wait(made, server)
            yield made
        finally:
            server.kill()
            server.wait()
    finally:
        end(made.processes())
        shutil.rmtree(folder, ignore_errors=True)


def _wait(made: Machine, server: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        assert server.poll() is None, (made.folder / "ssh" / "log").read_text()
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", made.ssh_port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("sshd does not listen")


def _script(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text).lstrip())
    path.chmod(0o755)


def _furnish(made: Machine) -> None:
    folder = made.folder
    for name in (
        "home",
        "operator/.mpc-ray",
        "operator/.ssh",
        "ssh",
        "bin",
        "tmp",
        "desk",
        *MOVED.values(),
        "opt/bin",
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _server(made)
    _stand_ins(made)
    token = folder / "operator" / ".mpc-ray" / "token"
    token.write_text("ab" * 32)
    token.chmod(0o600)
    # What lies at the desk: the checkout, with a wheel that nobody will install.
    (made.desk / "dist").mkdir()
    (made.desk / "dist" / "mpc_ray-0.1.0-py3-none-any.whl").write_text("")
    shutil.copy(ROOT / "constraints.txt", made.desk)
    shutil.copytree(ROOT / "configs", made.desk / "configs")


def _server(made: Machine) -> None:
    ssh = made.folder / "ssh"
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / name)], check=True)
    shutil.copy(ssh / "client.pub", ssh / "authorized_keys")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's cell for what is not let in yet
    (ssh / "config").write_text(
        f"Port {made.ssh_port}\nListenAddress 127.0.0.1\nHostKey {ssh / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {ssh / 'authorized_keys'}\nForceCommand {made.folder / 'bin' / 'enter'}\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n"
        "PermitRootLogin prohibit-password\nMaxStartups 50:30:100\nPrintMotd no\n"
    )
    # Everybody who logs in is at home in the folder; login shells read .bash_profile after /etc/profile.
    _script(
        made.folder / "bin" / "enter",
        f"""
        #!/bin/bash
        export HOME={made.home}
        cd "$HOME"
        exec bash -c "${{SSH_ORIGINAL_COMMAND:-true}}"
        """,
    )
    (made.home / ".bash_profile").write_text(
        f'. ~/.bashrc\nfor part in {made.folder}/profile.d/*.sh; do [ -r "$part" ] && . "$part"; done\n'
    )
    (made.home / ".bashrc").write_text(
        f"export PATH={made.folder}/bin:/usr/bin:/bin TMPDIR={made.folder}/tmp\n"
    )
    # All addresses lead here, whatever a cloud says where its machines are, by the name and key that are known
    # here; and no connection outlives its command.
    for where in ("bin", "operator"):
        _script(
            made.folder / where / "ssh",
            f"""
            #!/bin/sh
            exec /usr/bin/ssh -o ControlMaster=no -o ControlPath=none -o HostName=127.0.0.1 -o Port={made.ssh_port} \\
                -o User={getpass.getuser()} -i {made.key} "$@"
            """,
        )


def _stand_ins(made: Machine) -> None:
    folder, opt = made.folder, made.folder / "opt" / "bin"
    note = f'echo "$(basename "$0") $*" >> {folder}/said'
    for name in ("systemctl", "useradd", "apt-get", "cloud-init"):
        _script(folder / "bin" / name, f"#!/bin/sh\n{note}\n")
    _script(opt / "pip", f"#!/bin/sh\n{note}\n")
    _script(folder / "bin" / "sudo", '#!/bin/sh\nexec "$@"\n')
    # There is no user mpc-ray here to own things.
    _script(
        folder / "bin" / "install",
        f"""
        #!/bin/bash
        {note}
        words=()
        while [ $# -gt 0 ]; do case "$1" in -o|-g) shift 2;; *) words+=("$1"); shift;; esac; done
        exec /usr/bin/install "${{words[@]}}"
        """,
    )
    _script(
        folder / "bin" / "stop",
        f"""
        #!{sys.executable}
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from machine import end, ours
        end(ours({str(folder / "ray")!r}))
        """,
    )
    _script(
        opt / "ray",
        f"""
        #!/bin/bash
        echo "ray $* RAY_AUTH_MODE=$RAY_AUTH_MODE RAY_OVERRIDE_LABELS=$RAY_OVERRIDE_LABELS" >> {folder}/said
        [ -n "$RAY_HEAD_IP" ] && exit 0  # this is a worker's turn, on the one machine that there is
        case "$*" in
        stop*) exec {folder}/bin/stop;;
        start*--head*) exec {BIN}/ray "$@" --port={made.ray_port} --temp-dir={folder}/ray --num-cpus=1 \\
            --object-store-memory=80000000 --dashboard-agent-listen-port={free_port()} \\
            --dashboard-agent-grpc-port={free_port()} --runtime-env-agent-port={free_port()} \\
            --metrics-export-port={free_port()} --ray-client-server-port={free_port()};;
        *) exec {BIN}/ray "$@";;
        esac
        """,
    )
    (folder / "bin" / "ray").symlink_to(opt / "ray")


def filled(text: str, made: Machine) -> str:
    """A cluster file with all gaps filled in, for this machine."""
    for gap, value in {
        "FILL-ME-operator": "198.51.100.7",
        "FILL-ME-peer-1": "203.0.113.1",
        "FILL-ME-peer-2": "203.0.113.2",
        "FILL-ME-gateway": "203.0.113.9",
        "FILL-ME-head": "127.0.0.1",
        "FILL-ME-user": getpass.getuser(),
        "FILL-ME-key": str(made.key),
    }.items():
        text = text.replace(gap, value)
    return made.moved(text)
