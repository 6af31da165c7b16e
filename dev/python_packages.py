"""Python packages that tests start as a user would: LanceDB's own, and moto, which answers as S3 does."""

import sys

import package
from machine import home, lock, new_folder

LANCEDB = ("lancedb", "lancedb", "0.40.0")
MOTO = ("moto", "moto[s3,server]", "5.2.5")


def folder(wanted):
    """The folder for PYTHONPATH. It is filled if it is missing."""
    name, requirement, version = wanted
    # What is compiled in it is compiled for one Python.
    python = "{}.{}".format(*sys.version_info)
    target = home() / f"{name}-{version}-python-{python}"
    with lock("install"):
        if not target.exists():
            with new_folder(target) as draft:
                command = [sys.executable, "-m", "pip", "install", f"{requirement}=={version}", "--target", str(draft)]
                command += ["--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
                package.run(command, f"pip could not fetch {name} {version}", PIP_REQUIRE_VIRTUALENV="0")
    return str(target)
