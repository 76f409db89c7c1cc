"""A bucket for tests: the part of Google Cloud Storage's JSON API that `storage.gcs` uses, in memory, with faults.

Honours generation preconditions on create, replace and delete, as
https://cloud.google.com/storage/docs/request-preconditions says; uploads in one piece and resumable ones; reads by
ranges; lists by prefix, delimiter, glob and page. tests/engines runs the same tests against another emulator.
"""

import base64
import json
import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c


class Bucket:
    """What the server holds and is to do.

    Attributes:
        objects: (data, generation, metadata, content type) by (bucket, name).
        lost_replies: so many of the next changes are made and their connection is cut.
        troubles: so many of the next requests get a 503.
        refusal: status that every request gets, or None.
        page: objects per page of a listing.
        knows_globs: listings go by `matchGlob`.
        counts: requests by what they do.
    """

    def __init__(self):
        self.objects = {}
        self.buckets = {"bucket"}
        self.uploads = {}
        self.lost_replies = self.troubles = 0
        self.refusal = None
        self.page = 1000
        self.knows_globs = True
        self.counts = Counter()
        self.lock = threading.RLock()
        self._generation = 1_700_000_000_000_000

    def names(self, bucket="bucket"):
        """Return the names of all objects, sorted."""
        return sorted(name for holder, name in self.objects if holder == bucket)

    def data(self, name, bucket="bucket"):
        """Return an object's content."""
        return self.objects[bucket, name][0]

    def store(self, bucket, name, data, metadata=None, content_type="application/octet-stream"):
        """Put an object, with a generation of its own."""
        self._generation += 1
        self.objects[bucket, name] = (data, self._generation, metadata or {}, content_type)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_args):
        """Say nothing."""

    def do_GET(self):
        """Read an object, its description, or a listing."""
        self._serve()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET  # noqa: N815 - the names http.server wants

    def _serve(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._chunks()
        url = urlsplit(self.path)
        self.args = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        store = self.bucket
        with store.lock:
            if store.refusal:
                self._error(store.refusal, "does not have storage.objects.create access")
                return
            if store.troubles:
                store.troubles -= 1
                self._error(503, "try again")
                return
            self._route(url.path)

    def _chunks(self):
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _route(self, path):
        found = re.fullmatch(r"/(upload|download)?/?storage/v1/b/([^/]+)/o(?:/(.+))?", path)
        if found is None:
            self._error(404, "no such page")
            return
        part, bucket, rest = found[1], found[2], found[3]
        if bucket not in self.bucket.buckets:
            self._error(404, "The specified bucket does not exist.")
        elif copied := re.fullmatch(r"([^/]+)/copyTo/b/([^/]+)/o/([^/]+)", rest or ""):
            self._copy(bucket, unquote(copied[1]), copied[2], unquote(copied[3]))
        elif part == "upload":
            self._upload(bucket)
        elif rest is None:
            self._list(bucket)
        elif self.command == "DELETE":
            self._delete(bucket, unquote(rest))
        else:
            self._read(bucket, unquote(rest), media=self.args.get("alt") == "media")

    def _upload(self, bucket):
        if self.args["uploadType"] == "multipart":
            meta, data = self._multipart()
            self._finish(bucket, meta, data, self.args)
        elif self.command == "POST":
            session = f"s{len(self.bucket.uploads)}"
            self.bucket.uploads[session] = [json.loads(self.body or b"{}"), b"", self.args]
            self.bucket.counts["resumable"] += 1
            port = self.server.server_address[1]
            where = f"http://127.0.0.1:{port}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={session}"
            self._send(200, b"", {"Location": where})
        else:
            self._chunk(bucket, self.bucket.uploads[self.args["upload_id"]])

    def _chunk(self, bucket, upload):
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
        if span[1] is not None:
            upload[1] = upload[1][: int(span[1])] + self.body
        self.bucket.counts["chunks"] += 1
        if span[2] != "*" and len(upload[1]) == int(span[2]):
            self._finish(bucket, upload[0], upload[1], upload[2])
        else:
            self._send(308, b"", {"Range": f"bytes=0-{len(upload[1]) - 1}"} if upload[1] else {})

    def _multipart(self):
        mark = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
        _, meta, data, _ = self.body.split(b"--" + mark)
        meta, data = (part.split(b"\r\n\r\n", 1)[1] for part in (meta, data))
        return json.loads(meta), data[:-2]

    def _finish(self, bucket, meta, data, args):
        name = meta.get("name") or args["name"]
        if not self._may_change(bucket, name, args):
            return
        self.bucket.counts["stored"] += 1
        self.bucket.store(bucket, name, data, meta.get("metadata"), meta.get("contentType") or "")
        self._changed(self._describe(bucket, name))

    def _copy(self, bucket, name, to_bucket, to_name):
        if (bucket, name) not in self.bucket.objects:
            self._error(404, f"No such object: {bucket}/{name}")
            return
        data, _, metadata, kind = self.bucket.objects[bucket, name]
        self.bucket.store(to_bucket, to_name, data, metadata, kind)
        self._changed(self._describe(to_bucket, to_name))

    def _delete(self, bucket, name):
        if (bucket, name) not in self.bucket.objects:
            self._error(404, f"No such object: {bucket}/{name}")
        elif self._may_change(bucket, name, self.args):
            del self.bucket.objects[bucket, name]
            self._changed(None)

    def _may_change(self, bucket, name, args):
        wanted = args.get("ifGenerationMatch")
        there = self.bucket.objects.get((bucket, name), (b"", 0))[1]
        if wanted is not None and int(wanted) != there:
            self._error(412, "At least one of the pre-conditions you specified did not hold.")
            return False
        return True

    def _changed(self, described):
        if self.bucket.lost_replies:
            self.bucket.lost_replies -= 1
            self.close_connection = True
            return
        self._send(204 if described is None else 200, b"" if described is None else json.dumps(described).encode())

    def _read(self, bucket, name, *, media):
        found = self.bucket.objects.get((bucket, name))
        if found is None or self.args.get("generation", str(found[1])) != str(found[1]):
            self._error(404, f"No such object: {bucket}/{name}")
            return
        if not media:
            self._send(200, json.dumps(self._describe(bucket, name)).encode())
            return
        self.bucket.counts["reads"] += 1
        data, generation, _, _ = found
        headers = {"X-Goog-Generation": str(generation), "X-Goog-Hash": f"crc32c={_crc(data)}"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            self._send(200, data, headers)
            return
        first, last = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send(206, data[first : last + 1], headers)

    def _list(self, bucket):
        self.bucket.counts["listings"] += 1
        prefix, delimiter = self.args.get("prefix", ""), self.args.get("delimiter")
        names = [name for name in self.bucket.names(bucket) if name.startswith(prefix)]
        prefixes = []
        if delimiter:
            below = {name[len(prefix) :].partition(delimiter)[0] for name in names if delimiter in name[len(prefix) :]}
            prefixes = sorted(f"{prefix}{folder}{delimiter}" for folder in below)
            names = [name for name in names if delimiter not in name[len(prefix) :]]
        if "matchGlob" in self.args and self.bucket.knows_globs:
            names = [name for name in names if _glob(self.args["matchGlob"]).fullmatch(name)]
        start = int(self.args.get("pageToken", 0))
        reply = {
            "kind": "storage#objects",
            "prefixes": prefixes,
            "items": [self._describe(bucket, name) for name in names[start:][: self.bucket.page]],
        }
        if start + self.bucket.page < len(names):
            reply["nextPageToken"] = str(start + self.bucket.page)
        self._send(200, json.dumps(reply).encode())

    def _describe(self, bucket, name):
        data, generation, metadata, kind = self.bucket.objects[bucket, name]
        return {
            "kind": "storage#object", "bucket": bucket, "name": name, "size": str(len(data)), "metadata": metadata,
            "generation": str(generation), "metageneration": "1", "contentType": kind, "crc32c": _crc(data),
        }  # fmt: skip

    def _error(self, status, message):
        self._send(status, json.dumps({"error": {"code": status, "message": message}}).encode())

    def _send(self, status, data, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _crc(data):
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def _glob(pattern):
    words = {"**": ".*", "*": "[^/]*", "?": "[^/]", "[": "[", "]": "]", "!": "^"}
    return re.compile("".join(words.get(part, re.escape(part)) for part in re.split(r"(\*\*|[*?[\]!])", pattern)))


@contextmanager
def serving_bucket():
    """Run a server with one empty bucket, `bucket`; gives its Bucket and its address."""
    held = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": held})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield held, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
