"""Limiters over a real `redis-server` that speaks TLS: whose word it takes, and what is said when it does not."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import logging
import os
import subprocess
import sys

import pytest
from certificates import Certificates
from redis_servers import Server, fresh_name, limiter_at, messages
from waiting import until

from penstock import Limiter, StoreUnavailable, per_minute

pytestmark = [pytest.mark.slow, pytest.mark.once]


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("tls") / "trusted")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("tls") / "strangers")


@pytest.fixture
def server(trusted):
    with Server(tls=trusted) as server:
        yield server


def refused(caplog, url, why):
    """The store of this URL is refused, for that reason, which is logged once."""
    limiter = limiter_at(url, requests=5)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=why):
            limiter.acquire(timeout=10)
    until(lambda: messages(caplog, limiter, level=logging.ERROR))
    assert len(messages(caplog, limiter)) == 1
    return limiter


def test_an_authority_of_its_own_vouches_for_the_server(server, trusted):
    name, url = fresh_name(), f"rediss://127.0.0.1:{server.tls_port}/0?ssl_ca_certs={trusted.ca}"
    one, two = (limiter_at(url, name, requests=per_minute(10, burst=10), concurrency=2) for _ in range(2))
    one.acquire(requests=6, timeout=10).release()
    assert two.try_acquire(requests=5) is None
    assert two.try_acquire(requests=4) is not None


def test_ssl_cert_file_is_taken_for_the_authorities_of_the_system(server, trusted):
    code = f"""
from penstock import Limiter
store = "rediss://127.0.0.1:{server.tls_port}"
limiter = Limiter(name={fresh_name()!r}, store=store, requests=5, on_store_failure="closed")
limiter.acquire(timeout=10).release()
"""
    environment = {**os.environ, "SSL_CERT_FILE": str(trusted.ca)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=40)


def test_what_does_not_hold_is_said_and_mended_without_a_restart(server, trusted, strangers, tmp_path, caplog):
    address = f"rediss://127.0.0.1:{server.tls_port}"
    refused(caplog, address, "certificate.*UnknownIssuer")
    named = f"rediss://localhost:{server.tls_port}?ssl_ca_certs={trusted.ca}"
    refused(caplog, named, "certificate.*(not valid for name|NotValidForName)")
    refused(
        caplog, f"{address}?ssl_ca_certs={tmp_path}/none.pem", r"ssl_ca_certs .*none\.pem cannot be read: No such file"
    )
    authorities = tmp_path / "some authorities.pem"
    authorities.write_bytes(strangers.ca.read_bytes())
    limiter = refused(caplog, f"{address}?ssl_ca_certs={tmp_path}/some%20authorities.pem", "certificate.*UnknownIssuer")
    authorities.write_bytes(trusted.ca.read_bytes())

    def goes():
        try:
            limiter.acquire(timeout=5).release()
        except StoreUnavailable:
            return False
        return True

    until(goes)


def test_a_server_without_it(server):
    limiter = limiter_at(f"rediss://127.0.0.1:{server.port}", requests=5, on_store_failure="closed")
    with pytest.raises(StoreUnavailable, match="no connection with TLS within 1 s|timed out"):
        limiter.acquire(timeout=20)


def test_a_server_that_wants_to_know_who_comes(server, trusted, strangers, caplog):
    server.command("CONFIG", "SET", "tls-auth-clients", "yes")
    url = f"rediss://127.0.0.1:{server.tls_port}?ssl_ca_certs={trusted.ca}"
    refused(caplog, url, "fatal alert: CertificateRequired")

    def shown(by):
        return f"&ssl_certfile={by.client}&ssl_keyfile={by.key_of(by.client)}"

    refused(caplog, url + shown(strangers), "fatal alert: UnknownCA")
    limiter_at(url + shown(trusted), requests=5).acquire(timeout=10).release()


def test_a_cluster_speaks_it_too(trusted, caplog):
    with Server("--cluster-enabled", "yes", "--tls-cluster", "yes", tls=trusted) as node:
        slots = [str(slot) for slot in range(16_384)]
        assert b"OK" in node.command("CLUSTER", "ADDSLOTS", *slots)
        until(lambda: b"cluster_state:ok" in node.command("CLUSTER", "INFO"))
        address = f"rediss+cluster://127.0.0.1:{node.tls_port}"
        limiter = limiter_at(f"{address}?ssl_ca_certs={trusted.ca}", requests=5, on_store_failure="closed")
        limiter.acquire(timeout=10).release()
        refused(caplog, address, "certificate.*UnknownIssuer")


def test_files_are_for_tls_and_certificates_are_always_checked():
    for url, why in [
        ("redis://h?ssl_ca_certs=/ca.pem", "are for rediss://"),
        ("rediss://h?ssl_certfile=/c.pem", "ssl_certfile and ssl_keyfile go together"),
        ("rediss://h?ssl_cert_reqs=none", "ssl_cert_reqs is unknown; known are name, ssl_ca_certs"),
        ("rediss://h/#insecure", "certificates are always checked"),
    ]:
        with pytest.raises(ValueError, match=why):
            Limiter(name="x", store=url, requests=5)
