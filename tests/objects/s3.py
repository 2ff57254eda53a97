#!/usr/bin/env python3
"""An S3-compatible server for tests (moto) on 127.0.0.1, up in a second, gone with its parent.

  s3.py start --dir DIR [--port N] [--parent PID]   in the background; prints its URL when it answers
  s3.py stop --dir DIR
  s3.py run -- COMMAND                              COMMAND with TEST_S3 set; its exit code

It ends with --parent (default: the process that called it; 0: never). Needs tests/objects/requirements.txt.
There is one bucket, adtally-test, and one access key, adtally-test-key with the secret adtally-test-secret.

In front of moto, for all of it is one lock (moto itself checks a condition and stores in two steps), stand
  - the signature: every request must be signed by AWS Signature Version 4 as botocore computes it, and the body
    must have the hash it states; otherwise 403;
  - faults, which an object's key asks for with a part "f=WHAT.COUNT" (a PUT with If-None-Match), "h=WHAT.COUNT"
    (with If-Match) or "g=WHAT.COUNT" (a GET or HEAD), for the first COUNT requests of that kind and key; or
    "f=WHAT.COUNT.SKIP": for the first COUNT after SKIP:
      <status>   answered with it, not done          lost    done; the connection ends without an answer
      drop       not done; the connection ends       taken   as lost, and afterwards somebody else replaces the object
      short      half of the answer, then the connection ends
      mute       done; the answer bears no entity tag
      tagN       done; the answer's entity tag has N bytes
      deaf       done without its condition, as by a store that does not know it
"""
import argparse
import ctypes
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REGION, BUCKET = "eu-test-1", "adtally-test"
KEY, SECRET = "adtally-test-key", "adtally-test-secret"
START_SECONDS = 60


class S3Error(Exception):
    """What is wrong and what to do; meant to be shown as it is."""


# ---- the server ---------------------------------------------------------------------------------------------------
def signature(environ, body):
    """None, or why the request is not signed as it must be."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    said = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?"
                    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$", environ.get("HTTP_AUTHORIZATION", ""))
    if not said:
        return "no signature"
    key, _, region, signed, stated = said.groups()
    if key != KEY:
        return "InvalidAccessKeyId"
    if region != REGION:
        return "another region"
    headers = {}
    for name in signed.split(";"):
        variable = name.upper().replace("-", "_")
        value = environ.get(variable if name in ("content-type", "content-length") else "HTTP_" + variable)
        if value is None:
            return f"the signed header {name} is missing"
        headers[name] = value
    # What decides about the request must be under the signature.
    for name in ("host", "x-amz-date", "x-amz-content-sha256"):
        if name not in headers:
            return f"{name} is not signed"
    for name in environ:
        if name.startswith("HTTP_X_AMZ_") and name[5:].lower().replace("_", "-") not in headers:
            return f"{name} is not signed"
    if headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
        return "the body has another hash"
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=f"http://{headers['host']}{environ['REQUEST_URI']}",
                         headers=headers, data=body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = S3SigV4Auth(Credentials(KEY, SECRET), "s3", REGION)
    want = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return None if want == stated else "SignatureDoesNotMatch"


class Gate:
    """The WSGI application around moto: one request at a time, signatures, faults."""

    def __init__(self, inner):
        self.inner, self.lock, self.seen = inner, threading.Lock(), {}

    def __call__(self, environ, start_response):
        from io import BytesIO
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        with self.lock:
            why = signature(environ, body)
            if why:
                print(f"refused: {environ['REQUEST_METHOD']} {environ['REQUEST_URI']}: {why}", file=sys.stderr, flush=True)
                return self.refuse(start_response, 403, why)
            return self.fault(environ, start_response)

    @staticmethod
    def refuse(start_response, status, code):
        start_response(f"{status} Refused", [("Content-Type", "application/xml")])
        return [f"<?xml version=\"1.0\"?><Error><Code>{code.split()[0]}</Code><Message>{code}</Message></Error>".encode()]

    def due(self, environ):
        """The fault of this request, or ""."""
        method = environ["REQUEST_METHOD"]
        letter = "f" if "HTTP_IF_NONE_MATCH" in environ else "h" if method == "PUT" else "g"
        said = re.search(rf"/{letter}(?:=|%3D)([a-z0-9]+)\.(\d+)(?:\.(\d+))?(?=[/?]|$)", environ["REQUEST_URI"])
        if not said or method == "DELETE":
            return ""
        at = (letter, environ["PATH_INFO"])
        self.seen[at] = self.seen.get(at, 0) + 1
        what, count, skip = said.group(1), int(said.group(2)), int(said.group(3) or 0)
        return what if skip < self.seen[at] <= skip + count else ""

    def fault(self, environ, start_response):
        what = self.due(environ)
        if what.isdigit():
            return self.refuse(start_response, int(what), "Fault")
        if what == "drop":
            self.cut(environ)
        if what == "deaf":
            environ.pop("HTTP_IF_NONE_MATCH", None)
            environ.pop("HTTP_IF_MATCH", None)
        head = []
        body = b"".join(self.inner(environ, lambda status, headers, exc=None: head.append((status, headers))))
        if what in ("lost", "taken"):
            if what == "taken":
                self.replace(environ)
            self.cut(environ)
        if what == "mute":
            head[-1] = (head[-1][0], [h for h in head[-1][1] if h[0].lower() != "etag"])
        if what.startswith("tag"):
            head[-1] = (head[-1][0], [h for h in head[-1][1] if h[0].lower() != "etag"] + [("ETag", "t" * int(what[3:]))])
        start_response(*head[-1])
        return [body] if what != "short" else self.half(environ, body)

    def half(self, environ, body):
        yield body[:len(body) // 2]
        self.cut(environ)

    @staticmethod
    def cut(environ):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError("a fault that was asked for")

    def replace(self, environ):
        from io import BytesIO
        other = {k: v for k, v in environ.items()
                 if not k.startswith(("HTTP_IF_", "HTTP_X_AMZ_META", "HTTP_X_AMZ_CONTENT", "werkzeug.request"))}
        other["wsgi.input"], other["CONTENT_LENGTH"] = BytesIO(b"somebody else"), "13"
        b"".join(self.inner(other, lambda *_: None))


def serve(directory, port):
    """Runs until it is ended; writes server.json when it answers."""
    os.environ.update({"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true",
                       "no_proxy": "*", "NO_PROXY": "*",
                       "MOTO_ENABLE_ISO_REGIONS": "false", "MOTO_ALLOW_NONEXISTENT_REGION": "true"})
    import boto3
    from botocore.config import Config
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open, as those of real stores

        def log_request(self, *_):
            pass

    gate = Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", port, gate, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client("s3", endpoint_url=url, region_name=REGION,
                          config=Config(s3={"addressing_style": "path", "payload_signing_enabled": True},
                                        request_checksum_calculation="when_required"))
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    state = Path(directory) / "server.json"
    state.with_suffix(".new").write_text(json.dumps({"pid": os.getpid(), "url": url}), encoding="ascii")
    state.with_suffix(".new").rename(state)
    while True:
        time.sleep(3600)


# ---- commands -----------------------------------------------------------------------------------------------------
def running(pid):
    """A server of ours, not a later process with the same number."""
    try:
        return b"s3.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def die_with(parent):
    """In the server's process: SIGKILL when the thread that started it is gone; and a watch for any other."""
    os.setsid()
    if parent == os.getppid():
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    def watch():
        while True:
            time.sleep(0.5)
            try:
                if Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    raise OSError
            except (OSError, IndexError):
                os._exit(0)
    if parent:
        threading.Thread(target=watch, daemon=True).start()


def launch(directory, port, parent):
    """Starts `s3.py serve` as a process of its own; its URL when it answers."""
    state = Path(directory) / "server.json"
    Path(directory).mkdir(parents=True, exist_ok=True)
    if state.exists() and running(json.loads(state.read_text())["pid"]):
        raise S3Error(f"{directory}: a server runs there; `s3.py stop --dir {directory}` first")
    state.unlink(missing_ok=True)
    log = Path(directory) / "server.log"
    with open(log, "wb") as out:
        server = subprocess.Popen([sys.executable, __file__, "serve", "--dir", str(directory), "--port", str(port),
                                   "--parent", str(parent)], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    until = time.time() + START_SECONDS
    while not state.exists():
        if server.poll() is not None or time.time() > until:
            server.kill()
            said = "\n".join(log.read_text(errors="replace").strip().splitlines()[-8:])
            raise S3Error(f"the S3 server did not come up; end of {log}:\n{said}\n"
                          "Is tests/objects/requirements.txt installed (tests/run puts it into build/venv)?")
        time.sleep(0.05)
    return json.loads(state.read_text())["url"]


def start(args):
    print(launch(Path(args.dir).resolve(), args.port, os.getppid() if args.parent is None else args.parent))
    return 0


def stop(args):
    try:
        pid = json.loads((Path(args.dir) / "server.json").read_text())["pid"]
    except OSError as e:
        raise S3Error(f"{args.dir}: no server was started there ({e.strerror})") from e
    if running(pid):
        os.kill(pid, signal.SIGKILL)  # its data is in memory
    return 0


def run(args):
    if not args.command:
        raise S3Error("run: no command; s3.py run -- COMMAND")
    with tempfile.TemporaryDirectory(prefix="adtally-s3-") as d:
        url = launch(d, 0, os.getpid())
        try:
            return subprocess.call(args.command, env={**os.environ, "TEST_S3": url})
        finally:
            args.dir = d
            stop(args)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["start", "stop", "run", "serve"])
    p.add_argument("--dir")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--parent", type=int)
    argv, command = sys.argv[1:], []
    if "--" in argv:
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1:]
    args = p.parse_args(argv)
    args.command = command
    if args.what != "run" and not args.dir:
        p.error(f"{args.what} needs --dir")
    try:
        if args.what == "serve":
            die_with(args.parent or 0)
            serve(args.dir, args.port)
        return {"start": start, "stop": stop, "run": run}[args.what](args)
    except S3Error as e:
        print(f"s3.py: {e}", file=sys.stderr)
        return 69


if __name__ == "__main__":
    sys.exit(main())
