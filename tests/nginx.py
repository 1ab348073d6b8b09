"""A real nginx in front of a server, as docs/deploying.md has it."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.live import ROOT
from tests.ports import free_port

HOST = "127.0.0.1"
START_SECONDS = 20
STOP_SECONDS = 20
WHERE = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
AROUND = """
daemon off;
{user}
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{sample}
}}
"""


class Proxy:
    """A running nginx: `url` by TLS, `plain_url` without. `certificate` is what it shows."""

    def __init__(self, port: int, plain_port: int, certificate: Path) -> None:
        self.url = f"https://{HOST}:{port}"
        self.plain_url = f"http://{HOST}:{plain_port}"
        self.certificate = certificate


def sample(**others: str) -> str:
    """The sample of the docs, with each of its lines that `others` names in another form."""
    [found] = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/deploying.md").read_text(), re.DOTALL)
    text: str = found
    for line, other in others.items():
        assert text.count(line) == 1, f"{line!r} is not once in the sample"
        text = text.replace(line, other)
    return text.replace("chat.example.com;", f"{HOST};")


@asynccontextmanager
async def nginx(server_port: int, *, read_timeout: str) -> AsyncIterator[Proxy]:
    """nginx in front of the server at that port; gone at the end of the block."""
    program = shutil.which("nginx", path=WHERE)
    assert program is not None, "no nginx on this machine: `make test` installs it, once"
    with tempfile.TemporaryDirectory(prefix="webchat-nginx-") as directory:
        folder = Path(directory)
        certificate, key = _certificate(folder)
        port, plain_port = free_port(), free_port()
        config = folder / "nginx.conf"
        config.write_text(
            AROUND.format(
                folder=folder,
                user="user root;" if os.geteuid() == 0 else "",
                sample=sample(
                    **{
                        "listen 80;": f"listen {HOST}:{plain_port};",
                        "listen 443 ssl;": f"listen {HOST}:{port} ssl;",
                        "server 127.0.0.1:8000;": f"server 127.0.0.1:{server_port};",
                        "/etc/ssl/chat.example.com.pem": str(certificate),
                        "/etc/ssl/chat.example.com.key": str(key),
                        "proxy_read_timeout 60s;": f"proxy_read_timeout {read_timeout};",
                    }
                ),
            )
        )
        process = await asyncio.create_subprocess_exec(
            program, "-p", str(folder), "-e", "stderr", "-c", str(config)
        )
        proxy = Proxy(port, plain_port, certificate)
        try:
            await _until_it_answers(process, proxy)
            yield proxy
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                raise


async def _until_it_answers(process: asyncio.subprocess.Process, proxy: Proxy) -> None:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert process.returncode is None, "nginx ended"
                try:
                    await http.get(f"{proxy.url}/healthz")
                    return
                except httpx.TransportError:
                    await asyncio.sleep(0.02)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """The files of a certificate for the loopback address, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
