"""As much of the Hugging Face Hub as loading a file needs, on this machine, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from huggingface_hub import close_session, constants


class Hub(BaseHTTPRequestHandler):
    """HEAD with size, commit and etag, then GET. owner/broken, owner/gated and owner/slow are as they are called."""

    files: dict = {}  # (repository, file): bytes, or an int: only a size
    seen: list = []  # (command, file, revision)
    authorizations: set = set()
    wait = threading.Event()  # what owner/slow waits for

    def do_HEAD(self):
        self._answer(send=False)

    def do_GET(self):
        self._answer(send=True)

    def _answer(self, send):
        repo, found, rest = self.path.lstrip("/").partition("/resolve/")
        if not found:  # the client library's own questions
            return self._end(404)
        revision, _, name = rest.partition("/")
        self.seen.append((self.command, name, revision))
        self.authorizations.add(self.headers.get("Authorization"))
        page = self.files.get((repo, name))
        if repo == "owner/broken":
            return self._end(503)
        if repo == "owner/gated":
            return self._end(403, error="GatedRepo")
        if repo not in {repo for repo, _ in self.files}:
            return self._end(401, error="RepoNotFound")
        if page is None:
            return self._end(404, error="EntryNotFound")
        if repo == "owner/slow":
            self.wait.wait(10)
        self._end(200, size=page if isinstance(page, int) else len(page))
        if send:
            self.wfile.write(page)

    def _end(self, status, error=None, size=0):
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"' + "1" * 40 + '"')
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(monkeypatch, folder: Path, files: dict) -> Iterator[type[Hub]]:
    """A Hub with these files, an empty Hub cache in `folder`, and a token that must not be sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    point_at(monkeypatch, folder, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for name, value in (("files", files), ("seen", []), ("authorizations", set()), ("wait", threading.Event())):
        monkeypatch.setattr(Hub, name, value)
    yield Hub
    server.shutdown()
    server.server_close()


def point_at(monkeypatch, folder: Path, address: str = "http://127.0.0.1:9") -> None:
    """The client library asks `address` (nobody listens at the default one), and nothing is loaded yet."""
    from tokenlab import models
    from tokenlab.text import sources
    from tokenlab.text.uploads import Uploads

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(models, "_slots", type(models._slots)())
    monkeypatch.setattr(sources, "_uploads", Uploads())
    for ref in [ref for ref in sources._slots if ref.startswith("hub:")]:
        sources._slots.pop(ref)
    close_session()


def as_pages(repo: str, folder: Path, **changes) -> dict:
    """The files of a folder as those of a repository; changes: config__json=... replaces config.json."""
    pages = {(repo, path.name): path.read_bytes() for path in folder.iterdir()}
    return pages | {(repo, name.replace("__", ".")): page for name, page in changes.items()}
