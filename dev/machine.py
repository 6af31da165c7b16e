"""What every server needs from the machine: a folder, a lock, a port, and a process that outlives the script."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"


class Failure(Exception):
    """Something the user has to know: what failed, where, why, and how to fix it."""


def say(text):
    """Tells the user something. Standard output is kept for answers that a program reads."""
    print(text, file=sys.stderr, flush=True)


# Folders and users


@functools.cache
def unprivileged_user():
    """The user that runs Postgres when we are root, which Postgres refuses; None when we are an ordinary user."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall() if user.pw_uid != 0}
    for name in ("postgres", "nobody", *users):
        if name in users:
            return users[name]
    raise Failure("Postgres refuses to run as root and this machine has no other user.\nAdd one: useradd postgres")


def as_user(user):
    """Arguments for `subprocess` that run a program as this user."""
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@functools.cache
def home():
    """The folder that holds programs and data: `.local`, or one in /var/tmp where Postgres could not reach `.local`."""
    folder = CHECKOUT / ".local"
    user = unprivileged_user()
    if user is not None and not can_enter(user, CHECKOUT):
        folder = Path("/var/tmp") / f"embedsink-{hashlib.sha256(bytes(CHECKOUT)).hexdigest()[:12]}"
        if not folder.exists():
            say(f"{user.pw_name}, who runs Postgres, cannot enter {CHECKOUT}. The servers live in {folder} instead.")
    folder.mkdir(exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise Failure(f"The folder {folder} belongs to another user.\nWork as that user, or delete the folder.")
    return folder


def can_enter(user, folder):
    """Whether this user can reach the folder. It takes a process of that user to know."""
    shell = ["/bin/sh", "-c", 'cd "$1"', "sh", folder]
    return subprocess.run(shell, cwd="/", stderr=subprocess.DEVNULL, **as_user(user)).returncode == 0


@contextlib.contextmanager
def lock(name):
    """Lets one script at a time install a program or change a server; the others wait."""
    folder = home() / "locks"
    folder.mkdir(exist_ok=True)
    with open(folder / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def new_folder(target):
    """A folder that appears under its name only when it is complete. An interrupted run leaves nothing half-made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    yield draft
    draft.rename(target)


# Ports


def port_is_taken(port):
    """Whether some program already listens on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            raise Failure(f"Port {port} is reserved for root.\nChoose one above 1023.") from None
        except OSError:
            return True
    return False


def free_port():
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


# Processes


class Process:
    """One server process of one instance, remembered in its folder across runs of this script."""

    def __init__(self, folder):
        self.folder = folder
        self.log = folder / "server.log"
        self.record = folder / "server.json"

    def remembered(self):
        """What was written down at the last start: pid, port, program and marker."""
        try:
            return json.loads(self.record.read_text())
        except (FileNotFoundError, ValueError):
            return {}

    def remember(self, known):
        """Writes that down, all of it or nothing."""
        draft = self.record.with_suffix(".new")
        draft.write_text(json.dumps(known))
        draft.rename(self.record)

    def running(self):
        """What was written down, if that very process still runs; otherwise None."""
        known = self.remembered()
        return known if known and known["marker"] in command_line(known["pid"]) else None

    def start(self, command, *, program, port, marker, answers, user=None, env=None, timeout=90):
        """Starts the server in a session of its own and returns when it answers.

        `marker` is a part of the command line that tells this process from any other that may get its pid later.
        """
        with open(self.log, "ab") as log:
            seen = log.tell()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=env,
                start_new_session=True,
                **as_user(user),
            )
        try:
            self.remember({"pid": child.pid, "port": port, "program": program, "marker": str(marker)})
        except OSError:
            child.kill()
            raise
        deadline = time.monotonic() + timeout
        while child.poll() is None and time.monotonic() < deadline:
            if answers() and child.poll() is None:
                return
            time.sleep(0.1)
        ended = child.poll()
        if ended is None:
            child.kill()
            child.wait()
        why = f"did not answer within {timeout} s" if ended is None else f"ended with status {ended}"
        raise Failure(f"{program} on port {port} {why}. The end of its log, {self.log}:\n{self.log_tail(seen)}")

    def log_tail(self, since, lines=20):
        """The last lines that the server logged after the byte `since`."""
        with open(self.log, "rb") as log:
            log.seek(since)
            text = log.read().decode(errors="replace")
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (it is empty)"

    def stop(self, number, patience=30):
        """Sends the signal and waits; a process that does not end in time is killed. Returns whether one ran."""
        known = self.running()
        if known is None:
            return False
        pid = known["pid"]
        family = [pid, *children(pid)] if number == signal.SIGKILL else [pid]
        for member in family:
            send(member, number)
        deadline = time.monotonic() + patience
        while self.running() or any(command_line(member) for member in family[1:]):
            if time.monotonic() > deadline:
                if number == signal.SIGKILL:
                    raise Failure(f"{known['program']}, process {pid}, does not end, not even killed.")
                say(f"{known['program']} did not stop within {patience} s and is killed.")
                return self.stop(signal.SIGKILL)
            time.sleep(0.02)
        return True


def send(pid, number):
    """Sends a signal to a process that may just have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def command_line(pid):
    """The command line of a process; empty when it has ended, also when nobody collected its exit status."""
    if Path("/proc/self").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True).stdout


def children(pid):
    """The child processes of a process. Postgres gives each a session of its own, so no group holds them all."""
    found = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in listing.read_text().split()]
    return found
