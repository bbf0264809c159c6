"""Certificates for local servers."""

from __future__ import annotations

import subprocess
from pathlib import Path


def write_certificate(root: Path) -> tuple[Path, Path]:
    """Write a certificate of this machine that trusts itself, and its key."""
    certificate, key = root / "certificate.pem", root / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", *kind, *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
