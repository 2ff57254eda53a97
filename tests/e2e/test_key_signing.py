"""`adtally key create --signing`: the files are those of the openssl command, which derives the same public key
and signs with ours; a rotation retires a key and keeps its .pub; nothing is overwritten by mistake."""
import base64
import hashlib
import re
import shutil
import stat
import subprocess
from datetime import datetime, timezone

import pytest

from conftest import run

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed: deploy/setup test")


def openssl(*args, **kw):
    return subprocess.run(["openssl", *map(str, args)], capture_output=True, check=True, **kw).stdout


def raw_public(path, private=False):
    """The 32 bytes, as openssl sees them: the end of the SubjectPublicKeyInfo (RFC 8410)."""
    der = openssl("pkey", *([] if private else ["-pubin"]), "-in", path, "-pubout", "-outform", "DER")
    assert der[:12] == bytes.fromhex("302a300506032b6570032100") and len(der) == 44
    return der[12:]


def create(data, *args):
    """What it printed, by name, and the PEM."""
    out = run("key", "create", "--signing", *args, "--data", data).stdout
    said = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    return said, out[out.index("-----BEGIN"):]


def keys(data):
    return [line.split() for line in run("key", "list", "--data", data).stdout.splitlines()]


def test_openssl_reads_what_we_write(tmp_path):
    said, pem = create(tmp_path / "data")
    ring = tmp_path / "data/keys"
    private, public = ring / "signing.key", ring / f"{said['key id']}.pub"
    assert said["private key"] == str(private) and said["public key"] == str(public)
    assert sorted(p.name for p in ring.iterdir()) == sorted([private.name, public.name])
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "ED25519 Private-Key" in openssl("pkey", "-in", private, "-noout", "-text").decode()
    raw = raw_public(public)
    assert raw == raw_public(private, private=True)
    assert said["public key in base64"] == base64.b64encode(raw).decode()
    assert said["key id"] == hashlib.sha256(raw).hexdigest()[:16]
    assert pem == public.read_text() == openssl("pkey", "-in", private, "-pubout").decode()
    assert pem == run("key", "public", "--data", tmp_path / "data").stdout
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"a bill")
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", private, "-in", message, "-out", signature)
    openssl("pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-in", message, "-sigfile", signature)


def test_a_key_is_replaced_only_when_asked(tmp_path):
    first, _ = create(tmp_path)
    private = tmp_path / "keys/signing.key"
    before = private.read_bytes()
    again = run("key", "create", "--signing", "--data", tmp_path, check=False)
    assert again.returncode == 1 and "--rotate" in again.stderr and "(exists)" in again.stderr
    assert first["key id"] in again.stderr
    assert private.read_bytes() == before and len(keys(tmp_path)) == 1
    second, _ = create(tmp_path, "--rotate")
    assert second["retired"].startswith(first["key id"]) and second["key id"] != first["key id"]
    assert raw_public(private, private=True) == raw_public(tmp_path / f"keys/{second['key id']}.pub")
    assert run("key", "public", first["key id"], "--data", tmp_path).stdout == \
        (tmp_path / f"keys/{first['key id']}.pub").read_text()
    secret = before.splitlines()[1]
    assert not any(secret in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_the_list_says_when_and_which(tmp_path):
    assert "no signing key" in run("key", "list", "--data", tmp_path).stdout
    ids = [create(tmp_path)[0]["key id"], create(tmp_path, "--rotate")[0]["key id"]]
    want = []
    for key, what in zip(ids, ["retired", "current"]):
        path = tmp_path / f"keys/{key}.pub"
        made = datetime.fromtimestamp(int(path.stat().st_mtime), timezone.utc)
        want.append((path.stat().st_mtime_ns // 1_000_000, [key, made.strftime("%Y-%m-%dT%H:%M:%SZ"), what]))
    assert keys(tmp_path) == [line for _, line in sorted(want)]


def test_refusals_say_what_to_do(tmp_path):
    def refused(code, word, *args):
        done = run("key", *args, "--data", tmp_path, check=False)
        assert done.returncode == code and word in done.stderr, (done.returncode, done.stderr)

    refused(65, "nothing to rotate", "create", "--signing", "--rotate")
    refused(65, "key create --signing", "public")
    assert not list(tmp_path.rglob("signing.key"))
    create(tmp_path)
    private = tmp_path / "keys/signing.key"
    private.chmod(0o640)
    refused(78, f"chmod 600 {private}", "create", "--signing", "--rotate")
    refused(78, f"chmod 600 {private}", "list")
    private.chmod(0o600)
    refused(64, "--rotate", "create", "--rotate", "--class", "read")
    refused(64, "of API keys", "create", "--signing", "--class", "read")
    refused(64, "--signing", "create")
    refused(78, "16 hex digits", "public", "../../etc/passwd")
    openssl("genpkey", "-algorithm", "rsa", "-out", private)
    private.chmod(0o600)
    refused(78, "RSA", "public")


def test_a_key_of_openssl_is_taken(tmp_path):
    ring = tmp_path / "keys"
    ring.mkdir()
    openssl("genpkey", "-algorithm", "ed25519", "-out", ring / "signing.key")
    (ring / "signing.key").chmod(0o600)
    done = run("key", "public", "--data", tmp_path, check=False)
    assert done.returncode == 65
    command = re.search(r"openssl pkey .*\.pub", done.stderr).group(0)
    subprocess.run(command.split(), check=True)  # as it says
    assert run("key", "public", "--data", tmp_path).stdout == openssl("pkey", "-in", ring / "signing.key", "-pubout").decode()
    assert [line[2] for line in keys(tmp_path)] == ["current"]


def test_api_keys_are_as_before(tmp_path):
    assert re.fullmatch(r"key: k[0-9a-f]+\.[0-9a-f]{64}\n",
                        run("key", "create", "--class", "read", "--keys", tmp_path / "keys").stdout)
    assert run("key", "create", check=False).returncode == 64
