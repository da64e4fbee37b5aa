"""The web page and its interface: loopback, a token, files of one folder only."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.requests import ClientDisconnect

from penumbra import __version__
from penumbra.errors import DataError
from penumbra.inference.records import read_summaries
from penumbra.serve import upload
from penumbra.serve.jobs import Queue, new_id
from penumbra.serve.worker import Predict, Worker

COOKIE = "penumbra"
HOSTS = {"127.0.0.1", "localhost", "[::1]"}
STATIC = {
    "viewer.js": "text/javascript",
    "viewer.css": "text/css",
    "niivue.umd.js": "text/javascript",
    "NIIVUE-LICENSE.txt": "text/plain",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Jobs:
    """What turns a viewer into a server: where uploads wait and who predicts them."""

    queue: Queue
    uploads: Path
    predict: Predict
    limit: int = upload.MAX_UPLOAD


def create_app(predictions: Path, *, token: str, jobs: Jobs | None = None) -> FastAPI:
    """The viewer over a prediction folder and, with ``jobs``, the prediction service.

    Every request needs the token, as ``Authorization: Bearer``, or as the cookie that
    ``/login?token=`` sets. The Host header must be this computer's own name, so that no page from
    elsewhere can reach in under a borrowed name.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if jobs is None:
            yield
            return
        worker = Worker(jobs.queue, jobs.uploads, jobs.predict)
        app.state.worker = worker
        worker.start()
        yield
        worker.stop()

    app = FastAPI(title="Penumbra", version=__version__, lifespan=lifespan, docs_url=None)
    _guard(app, token)
    _viewer(app, predictions)
    if jobs is not None:
        _queue(app, jobs)
    return app


def _guard(app: FastAPI, token: str) -> None:
    def known(given: str) -> bool:
        return hmac.compare_digest(given.encode(), token.encode())

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name not in HOSTS:
            response: Response = JSONResponse({"detail": "unknown host"}, 421)
        elif request.url.path != "/login" and not known(_given(request)):
            response = JSONResponse({"detail": "a valid token is needed"}, 401)
        else:
            response = await answer(request)
        response.headers.update(_HEADERS)
        return response

    @app.get("/login", include_in_schema=False)
    def login(token: str = "") -> Response:
        if not known(token):
            raise HTTPException(401, "a valid token is needed")
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response

    @app.exception_handler(DataError)
    async def explain(request: Request, error: DataError) -> Response:
        return JSONResponse(
            {"detail": str(error)}, 413 if isinstance(error, upload.TooLarge) else 400
        )


def _given(request: Request) -> str:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return value if kind.lower() == "bearer" else request.cookies.get(COOKIE, "")


def _viewer(app: FastAPI, predictions: Path) -> None:
    static = resources.files("penumbra") / "serve" / "static"

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return Response((static / "viewer.html").read_text(), media_type="text/html")

    @app.get("/static/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404, "no such file")
        return Response((static / name).read_bytes(), media_type=STATIC[name])

    @app.get("/api/cases")
    def cases() -> list[dict[str, Any]]:
        """Summaries of all predictions, the most in need of review first."""
        return read_summaries(predictions)

    @app.get("/api/maps/{case}/{name}/{file}")
    def one_map(case: str, name: str, file: str) -> Response:
        """One map of one case, as its summary lists it."""
        path = predictions / Path(file).name
        if file not in _summary(predictions, case)["files"].get(name, ()) or not path.is_file():
            raise HTTPException(404, "no such map")
        return FileResponse(path, media_type="application/octet-stream")

    @app.get("/api/pages/{case}")
    def one_page(case: str) -> Response:
        """The one-page summary of a case."""
        path = predictions / f"{Path(_summary(predictions, case)['case']).name}.html"
        if not path.is_file():
            raise HTTPException(404, "no such page")
        return Response(path.read_text(), media_type="text/html")


def _summary(predictions: Path, case: str) -> dict[str, Any]:
    for record in read_summaries(predictions):
        if record["case"] == case:
            return record
    raise HTTPException(404, "no such case")


def _queue(app: FastAPI, jobs: Jobs) -> None:
    @app.post("/api/jobs", status_code=202)
    async def submit(request: Request, name: str) -> dict[str, Any]:
        """Queue a scan, sent as the body; of its name only the suffix counts."""
        suffix = upload.suffix_of(name)
        stated = request.headers.get("content-length", "")
        if stated.isdigit() and int(stated) > jobs.limit:
            raise upload.TooLarge(f"more than {jobs.limit} bytes; send a smaller scan")
        id = new_id()
        try:
            await upload.receive(request.stream(), jobs.uploads / f"{id}{suffix}", limit=jobs.limit)
        except ClientDisconnect as error:
            raise DataError("the upload was cut short; send it again") from error
        job = jobs.queue.add(suffix, id=id)
        app.state.worker.wake.set()
        return asdict(job)

    @app.get("/api/jobs")
    def listed() -> list[dict[str, Any]]:
        """All jobs, oldest first."""
        return [asdict(job) for job in jobs.queue.jobs()]

    @app.get("/api/jobs/{id}")
    def one(id: str) -> dict[str, Any]:
        """One job; when it is done its id is the name of its case."""
        job = jobs.queue.find(id)
        if job is None:
            raise HTTPException(404, "no such job")
        return asdict(job)
