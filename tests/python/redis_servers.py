"""Real servers of Redis on free ports, for one test each, and a proxy that makes the way to them long or broken.

`PENSTOCK_REDIS_SERVER` names another program than `redis-server`: another version, or Valkey's.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import atexit
import binascii
import contextlib
import functools
import itertools
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from waiting import until

from penstock import Limiter

_numbers = itertools.count()


def fresh_name():
    """A name that no other limiter has."""
    return f"test-{os.getpid()}-{next(_numbers)}"


def free_port():
    """A port that nobody has, nor gets while its server is down.

    The system gives those from some 32,000 on to whoever connects, and so sooner or later to one that knocks at a
    server which is no more: it is connected with itself. A node of a cluster also has the port that is 10,000 higher.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 18_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


PROGRAM = os.environ.get("PENSTOCK_REDIS_SERVER", "redis-server")


def limiter_at(url, name=None, **limits):
    return Limiter(name=name or fresh_name(), store=url, **limits)


def is_back(caplog, limiter):
    """Whether it is back in its store; a call looks."""
    limiter.acquire(timeout=10).release()
    return any("is back in its store" in line for line in messages(caplog, limiter))


def messages(caplog, *limiters, level=logging.WARNING):
    """What was logged of limiters."""
    records = [record for record in caplog.records if record.name == "penstock" and record.levelno >= level]
    lines = [record.getMessage() for record in records]
    return [line for line in lines if any(repr(limiter.name) in line for limiter in limiters)]


def surprises(caplog, *limiters):
    """What was logged of limiters that a machine which stands still for a second does not explain."""
    explained = ("no answer within", "no connection within", "is back in its store")
    return [line for line in messages(caplog, *limiters) if not any(words in line for words in explained)]


class Server:
    """One server. What it knows is lost when it is killed, unless it is told to keep it.

    With `tls`, it listens for that too, on a port of its own.
    """

    def __init__(self, *options, keep=False, tls=None, environment=None):
        self.directory = tempfile.mkdtemp(prefix="penstock-redis-")
        self.options, self.keep, self.environment = options, keep, environment
        self.process = self.tls_port = None
        if tls is not None:
            files = [
                "--tls-cert-file",
                tls.server,
                "--tls-key-file",
                tls.key_of(tls.server),
                "--tls-ca-cert-file",
                tls.ca,
            ]
            self.options += ("--tls-auth-clients", "optional", *map(str, files))
        for _ in range(10):
            self.port, self.tls_port = free_port(), tls and free_port()
            if self._start():
                return
        raise RuntimeError("no redis-server could be started; .ci/run installs it")

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def _start(self):
        saving = ["--appendonly", "yes", "--appendfsync", "always"] if self.keep else ["--appendonly", "no"]
        command = [
            PROGRAM,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            self.directory,
            "--save",
            "",
        ]
        secure = ["--tls-port", str(self.tls_port)] if self.tls_port else []
        self.process = subprocess.Popen(
            [*command, *saving, *secure, *self.options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self._is_there():
                    return True
            time.sleep(0.01)
        self.kill()
        return False

    def _is_there(self):
        """Whether it answers, and not another that was quicker to take the port."""
        told = self.command("INFO", "server")
        return b"process_id:" not in told or b"process_id:%d\r" % self.process.pid in told

    def start(self):
        assert self._start()

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop_for_a_while(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words, timeout=5, port=None):
        """The raw answer to a command."""
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=timeout) as connection:
            connection.sendall(encode(*words))
            connection.settimeout(timeout)
            return connection.recv(1 << 20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def redis_store():
    """The URL of a store in which nothing is used, with the name of the limiter in it."""
    yield f"{_shared().url}?name={fresh_name()}"


@functools.cache
def _shared():
    server = Server()
    atexit.register(server.__exit__)
    return server


def encode(*words):
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)])


#: A cluster goes on with the slots that it has while one master is away, and a replica is told at once what there is.
CLUSTERED = ("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")


def slot_of(name):
    """The slot of a limiter's key."""
    return binascii.crc_hqx(name.encode(), 0) % 16_384


class Cluster:
    """Three masters that share the slots."""

    def __init__(self):
        self.nodes = [self._node() for _ in range(3)]
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        subprocess.run(
            ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
        deadline = time.monotonic() + 30
        while not all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in self.nodes):
            assert time.monotonic() < deadline, "the cluster never came up"
            time.sleep(0.05)

    @staticmethod
    def _node():
        return Server("--cluster-enabled", "yes", "--cluster-node-timeout", "1500", *CLUSTERED)

    @property
    def url(self):
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def masters(self):
        """The nodes that have slots."""
        return [node for node in self.nodes if b"role:master" in node.command("INFO", "replication")]

    def owner(self, name):
        """The master that has a limiter's key, another one, and the key's slot."""
        slot = slot_of(name)
        masters = self.masters()
        for node in masters:
            if b"MOVED" not in node.command("HLEN", f"penstock:{{{name}}}"):
                return node, next(other for other in masters if other is not node), slot
        raise AssertionError(f"nobody has {name}")

    def replicate(self, master):
        """A new node that follows `master`, and is up to date with it."""
        replica = self._node()
        self.nodes.append(replica)
        replica.command("CLUSTER", "MEET", "127.0.0.1", master.port)
        identity = self.identity(master)
        until(lambda: identity.encode() in replica.command("CLUSTER", "NODES"))
        until(lambda: b"OK" in replica.command("CLUSTER", "REPLICATE", identity))
        until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        return replica

    @staticmethod
    def identity(node):
        return node.command("CLUSTER", "MYID").split(b"\r\n")[1].decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.__exit__()


class Proxy:
    """Hands bytes on to a server, late, or not at all."""

    def __init__(self, port):
        self.target, self.delay, self.silent, self.open = port, 0.0, False, True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def _accept(self):
        while self.open:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self.connections += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._hand_on, args=(source, sink), daemon=True).start()

    def _hand_on(self, source, sink):
        # What is read waits its time, and what comes meanwhile does not wait for it.
        queue, filled = [], threading.Condition()

        def deliver():
            while True:
                with filled:
                    while not queue:
                        filled.wait()
                    due, data = queue.pop(0)
                time.sleep(max(0.0, due - time.monotonic()))
                while self.silent and self.open:
                    time.sleep(0.01)
                if not data:
                    with contextlib.suppress(OSError):
                        sink.shutdown(socket.SHUT_RDWR)
                    return
                try:
                    sink.sendall(data)
                except OSError:
                    return

        threading.Thread(target=deliver, daemon=True).start()
        while True:
            try:
                data = source.recv(1 << 16)
            except OSError:
                data = b""
            with filled:
                queue.append((time.monotonic() + self.delay, data))
                filled.notify()
            if not data:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open = False
        self.listener.close()
        for connection in self.connections:
            connection.close()
