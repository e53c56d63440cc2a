"""Child processes: started so that they die with their parent, see the same settings, and have names of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from firstread.settings import ENV_PREFIX, Settings
from firstread.settings.unknown_names import FILE_SUFFIX

TRAMPOLINE = """
import ctypes, os, sys
parent, number = int(sys.argv[1]), int(sys.argv[2])
ctypes.CDLL(None, use_errno=True).prctl(1, number, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Sets the parent-death signal (prctl(2), PR_SET_PDEATHSIG), which an exec keeps, and becomes the command."""


def spawn(
    command: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    stdout: Any = None,
    stderr: Any = None,
    pass_fds: Sequence[int] = (),
    umask: int = -1,
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own that is killed when this process dies, by ``kill -9`` too.

    To be called from the main thread: the kernel watches the thread that forked, not the process.

    Parameters
    ----------
    command : sequence of str
        The first element is an absolute path.
    umask : int
        Of the new process; by default that of this one.
    """
    if sys.platform.startswith("linux"):
        wrap = [sys.executable, "-I", "-S", "-c", TRAMPOLINE, str(os.getpid()), str(int(signal.SIGKILL))]
        command = [*wrap, *command]
    return subprocess.Popen(
        list(command),
        env=dict(os.environ if environ is None else environ),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        umask=umask,
        start_new_session=True,
    )


def settings_environ(settings: Settings, **changes: Any) -> dict[str, str]:
    """This process's environment with every setting as it stands, for a child that must see the same.

    Every setting is written out, and the child reads no file of settings: one that changed meanwhile cannot stop it.
    What else has a name like ours, such as the secrets of destinations, goes along.
    """
    ours = {ENV_PREFIX + name.upper() for name in type(settings).model_fields}
    ours |= {name + FILE_SUFFIX for name in ours}
    environ = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    for name in type(settings).model_fields:
        value = changes[name] if name in changes else getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, SecretStr):
            text = value.get_secret_value()
        elif isinstance(value, tuple | list | dict):
            text = json.dumps(value, default=str)
        else:
            text = str(value)
        environ[ENV_PREFIX + name.upper()] = text
    environ[ENV_PREFIX + "CONFIG"] = os.devnull
    return environ


def firstread_command(*arguments: str) -> list[str]:
    """The command line of ``firstread ...`` in this interpreter."""
    return [sys.executable, "-m", "firstread_cli.main", *arguments]


def process_id(kind: str) -> str:
    """A name for this process that no other has: kind, host, pid and a random part."""
    return f"{kind}:{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def is_running(pid: int) -> bool:
    """Whether a process of this machine has that pid and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return _answers(pid) if not Path("/proc/self/stat").exists() else False
    return state != "Z"


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def stop(process: subprocess.Popen[bytes], limit_s: float) -> int:
    """Ask a child to end (SIGTERM), kill it after the limit; returns its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(timeout=30)
