"""LanceDB's own Python package, which a test reads the connector's rows with."""

import sys

import package
from machine import home, lock, new_folder

NAME, VERSION = "lancedb", "0.40.0"


def folder():
    """The folder for PYTHONPATH. It is filled if it is missing."""
    target = home() / f"{NAME}-python-{VERSION}"
    with lock("install"):
        if not target.exists():
            with new_folder(target) as draft:
                command = [sys.executable, "-m", "pip", "install", f"{NAME}=={VERSION}", "--target", str(draft)]
                command += ["--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
                package.run(command, f"pip could not fetch {NAME} {VERSION}", PIP_REQUIRE_VIRTUALENV="0")
    return str(target)
