"""Certificates for the tests' servers, made by openssl: an authority, and what it vouches for."""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs, no-check-untyped-defs

import subprocess


class Certificates:
    """An authority of its own, a server's certificate for 127.0.0.1, and a client's."""

    def __init__(self, directory):
        directory.mkdir(parents=True)
        self.directory = directory
        self.ca, self.server, self.client = (directory / f"{name}.pem" for name in ("ca", "server", "client"))
        authority = ("-subj", f"/CN=authority of {directory.name}", "-days", "2")
        self._openssl("req", "-x509", *authority, *self._new(self.ca), "-out", self.ca)
        for certificate in (self.server, self.client):
            request, extra = directory / "request", directory / "extra"
            extra.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n")
            self._openssl("req", "-subj", f"/CN={certificate.stem}", *self._new(certificate), "-out", request)
            by = ("-CA", self.ca, "-CAkey", self.key_of(self.ca), "-CAcreateserial", "-days", "2", "-extfile", extra)
            self._openssl("x509", "-req", "-in", request, *by, "-out", certificate)

    def key_of(self, certificate):
        return certificate.with_suffix(".key")

    def _new(self, certificate):
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        return (*curve, "-nodes", "-keyout", self.key_of(certificate))

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=30)
