"""macOS and Windows as far as Python can tell: a process in which what they have not is taken away.

The standard library and what we depend on come in first, as they are on Linux: what is tested is our own code.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LINUX_ONLY = """
    memfd_create MFD_CLOEXEC MFD_ALLOW_SEALING O_TMPFILE O_PATH pipe2 sched_getaffinity sched_setaffinity eventfd
    pidfd_open copy_file_range splice getrandom posix_fadvise setresuid
"""
UNIX_ONLY = """
    register_at_fork fork forkpty getuid geteuid getgid getegid O_CLOEXEC O_NONBLOCK O_DIRECTORY O_NOFOLLOW O_SYNC
    sysconf fchmod fchown chown lchown pread pwrite uname mkfifo sendfile killpg getpgid setsid openpty statvfs
    posix_fallocate posix_spawn wait3 wait4 getpriority nice sync chroot getloadavg confstr
"""
UNIX_SIGNALS = "SIGHUP SIGKILL SIGUSR1 SIGUSR2 SIGCHLD SIGPIPE pthread_sigmask sigwait alarm setitimer"
UNIX_MODULES = "fcntl resource termios pwd grp tty pty syslog"

LIBRARIES = """
    asyncio, ctypes, getpass, httpx, lzma, numpy, PIL.Image, PIL.PngImagePlugin, pydantic.main, rich.console,
    rich.progress, safetensors.numpy, scipy.sparse, subprocess, sysconfig, tempfile, tenseal.sealapi, typer,
    urllib.request, zoneinfo, zstandard, cryptography.hazmat.primitives.kdf.scrypt,
    cryptography.hazmat.primitives.ciphers.aead
"""

MACOS = ("darwin", LINUX_ONLY, "", "")
WINDOWS = ("win32", LINUX_ONLY + UNIX_ONLY, UNIX_SIGNALS, UNIX_MODULES)
SYSTEMS = {"macOS": MACOS, "Windows": WINDOWS}

_TAKE_AWAY = """
import os, signal, sys
import {libraries}
sysconfig.get_config_vars()
for module, names in ((os, {of_os!r}), (signal, {of_signal!r})):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in {modules!r}.split():
    sys.modules[name] = None
urllib.request.getproxies = lambda: {{}}
sys.platform = {platform!r}
"""


def run_on(system: str, script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process from which what a system lacks was taken."""
    platform, of_os, of_signal, modules = SYSTEMS[system]
    before = _TAKE_AWAY.format(
        libraries=" ".join(LIBRARIES.split()), of_os=of_os, of_signal=of_signal, modules=modules, platform=platform
    )
    return subprocess.run(
        [sys.executable, "-c", before + script, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
