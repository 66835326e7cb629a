"""A stand-in for the Hugging Face hub, which cannot be reached from a test: hub.py DIRECTORY [--private OWNER] [--stall FILE] [--break FILE]

Every DIRECTORY/OWNER/NAME is a repository. It plays the hub's public endpoints as its own clients use them: the list of a revision
(/api/models/OWNER/NAME/revision/REV), and files (/OWNER/NAME/resolve/REV/FILE), which it answers with a redirection to another path, with ranges.
Repositories of the owner given with --private want the token `secret`. --stall sends half of the file of this name and then nothing; --break
ends the connection after half of it, the first time. It prints its port, and then one line for each request.
"""

import argparse
import hashlib
import http.server
import json
import pathlib
import socketserver
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("directory", type=pathlib.Path)
parser.add_argument("--private")
parser.add_argument("--stall")
parser.add_argument("--break", dest="broken")
options = parser.parse_args()
broken_once = set()


def commit(repository: pathlib.Path) -> str:
    return hashlib.sha1(str(repository).encode()).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        print(self.path, self.headers.get("Range", "-"), flush=True)
        parts = self.path.strip("/").split("/")
        if parts[0] == "api" and len(parts) == 6:
            return self.listing(parts[2], parts[3], parts[5])
        if parts[0] == "cdn":
            return self.content(options.directory.joinpath(*parts[1:]))
        if len(parts) >= 5 and parts[2] == "resolve":
            return self.redirection(parts[0], parts[1], parts[3], "/".join(parts[4:]))
        return self.refuse(404)

    def is_let_in(self, owner: str) -> bool:
        return owner != options.private or self.headers.get("Authorization") == "Bearer secret"

    def listing(self, owner: str, name: str, revision: str) -> None:
        repository = options.directory / owner / name
        if not self.is_let_in(owner):
            return self.refuse(401)
        if not repository.is_dir() or revision not in ("main", "v1"):
            return self.refuse(404)
        files = sorted(str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file())
        body = json.dumps(
            {"id": f"{owner}/{name}", "sha": commit(repository), "siblings": [{"rfilename": file} for file in files]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def redirection(self, owner: str, name: str, revision: str, file: str) -> None:
        repository = options.directory / owner / name
        if not self.is_let_in(owner):
            return self.refuse(401)
        if revision != commit(repository) or not (repository / file).is_file():
            return self.refuse(404)
        self.send_response(302)
        self.send_header("Location", f"/cdn/{owner}/{name}/{file}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def content(self, path: pathlib.Path) -> None:
        body = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if path.name == options.stall:
            self.wfile.write(body[start : len(body) // 2])
            self.wfile.flush()
            time.sleep(600)
        if path.name == options.broken and path not in broken_once:
            broken_once.add(path)
            self.wfile.write(body[start : len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body[start:])


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", 0), Hub)
print(server.server_port, flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
