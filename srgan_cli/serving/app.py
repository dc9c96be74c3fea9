"""The routes. `build` combines them with the guard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from srgan_cli import __version__
from srgan_cli.config import UpscaleOptions
from srgan_cli.engine.held import Upscalers
from srgan_cli.errors import SrganError
from srgan_cli.networks import library, registry
from srgan_cli.serving import page
from srgan_cli.serving.answers import ProblemError, disposition, problem_of
from srgan_cli.serving.guard import COOKIE, Guard, is_token
from srgan_cli.serving.jobs import Jobs
from srgan_cli.serving.making import Result, make, warm_up, within_limits
from srgan_cli.serving.metrics import Metrics
from srgan_cli.serving.openapi import document
from srgan_cli.serving.room import FullError, Room
from srgan_cli.serving.settings import Questions, ServeOptions
from srgan_cli.serving.uploads import Reader, drain
from srgan_cli.serving.workshop import Task, Workshop
from srgan_cli.wording import are, counted

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
OnRequest: TypeAlias = Callable[[str, str, int, float], None]  # method, route, status, seconds
OnFault: TypeAlias = Callable[[BaseException], None]

_CHUNK_BYTES = 1 << 18
_HEARTBEAT_S = 10.0  # the page takes silence for a dead server, and proxies close idle connections
_PREVIEW_PIXELS = 120_000_000  # building a comparison page takes about ten bytes per px


def build(
    options: ServeOptions,
    questions: Questions,
    upscalers: Upscalers,
    on_request: OnRequest,
    on_fault: OnFault,
) -> Starlette:
    """The application. `on_request` is called for each request, `on_fault` for errors that are defects in srgan,
    and if the model cannot be loaded."""
    service = Service(options, questions, upscalers, on_request, on_fault)
    routes = [
        Route("/", service.wrap(service.page)),
        Route("/page.css", service.wrap(service.style)),
        Route("/page.js", service.wrap(service.script)),
        Route("/login", service.wrap(service.login), methods=["GET", "POST"]),
        Route("/v1/upscale", service.wrap(service.upscale), methods=["POST"]),
        Route("/v1/jobs", service.wrap(service.new_job), methods=["POST"]),
        Route("/v1/jobs/{id}", service.wrap(service.job), methods=["GET", "DELETE"]),
        Route("/v1/jobs/{id}/events", service.wrap(service.events)),
        Route("/v1/jobs/{id}/result", service.wrap(service.result)),
        Route("/v1/jobs/{id}/compare", service.wrap(service.compare)),
        Route("/v1/models", service.wrap(service.models)),
        Route("/v1/openapi.json", service.wrap(service.openapi)),
        Route("/healthz", service.wrap(service.health)),
        Route("/metrics", service.wrap(service.metrics_page)),
    ]
    handlers: dict[Any, Any] = {HTTPException: _http_problem}
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, options=options, on_refusal=service.refused)],
        exception_handlers=handlers,
        lifespan=service.lifespan,
    )


class FileResponse(StreamingResponse):
    """A file. `ended` is called when it has been sent, or cannot be sent. (`chunks` cannot do that: if the client has
    disconnected before, it does not even begin.)"""

    def __init__(
        self, chunks: AsyncIterator[memoryview], headers: dict[str, str], mime: str, ended: Callable[[], None]
    ) -> None:
        super().__init__(chunks, 200, headers, mime)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


async def _http_problem(_request: Request, err: HTTPException) -> Response:
    what = {404: "there is nothing at this address; /v1/openapi.json lists what there is",
            405: "this address does not support that method"}.get(err.status_code, err.detail)  # fmt: skip
    return ProblemError(err.status_code, what).response(1, err.headers)


@dataclass
class Service:
    """State shared by the routes."""

    options: ServeOptions
    questions: Questions
    upscalers: Upscalers
    on_request: OnRequest
    on_fault: OnFault
    metrics: Metrics = field(default_factory=Metrics)
    _comparing: threading.Lock = field(default_factory=threading.Lock)
    _counting: set[asyncio.Task[None]] = field(default_factory=set)  # so that they are not garbage-collected

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        options = self.options
        self.room = Room(options.held_bytes)
        self.workshop = Workshop(options.queue, self._make, lambda: warm_up(options, self.upscalers, self.on_fault))
        self.jobs = Jobs(self.workshop, options.keep_s)
        self.reader = Reader(options, self.jobs)
        sweeping = asyncio.create_task(self.jobs.sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            await self.workshop.close()

    def _make(self, task: Task, progress: Callable[[float], None]) -> Result:
        return make(task.data, task.options, self.upscalers, max_result_pixels=self.options.max_result_pixels,
                    progress=progress)  # fmt: skip

    def wrap(self, handler: Handler) -> Handler:
        """Turns problems into responses; counts and reports requests."""

        async def wrapped(request: Request) -> Response:
            began = time.perf_counter()
            try:
                response = await handler(request)
            except ClientDisconnect:
                response = Response(status_code=499)  # as in nginx: the client has disconnected
            except ProblemError as problem:
                await drain(request)
                response = problem.response(self.workshop.retry_after_s())
            except FullError:
                await drain(request)
                ahead = f"{counted(self.workshop.length, 'picture')} {are(self.workshop.length)} ahead of yours"
                full = ProblemError(429, f"{ahead}; try again later", retry=True)
                response = full.response(self.workshop.retry_after_s())
            except asyncio.CancelledError:  # the server's grace period has passed; its protocol would answer 500
                ending = ProblemError(503, "the server is stopping; send the request again later", close=True)
                response = ending.response(1)
            route = str(getattr(request.scope.get("route"), "path", "other"))
            self.metrics.requests[(route, response.status_code)] += 1
            self.on_request(request.method, route, response.status_code, time.perf_counter() - began)
            return response

        return wrapped

    def refused(self, method: str, status: int) -> None:
        """A request that was refused before it reached a route: other site, other name, no token."""
        self.metrics.requests[("refused", status)] += 1
        self.on_request(method, "refused", status, 0.0)

    # ------------------------------------------------------------------------------------------------------- pictures

    async def upscale(self, request: Request) -> Response:
        """Enlarge a picture while the client waits."""
        task = await self._task(request)
        try:
            self.workshop.put(task)
            await self._ended_or_left(task, request)
        except BaseException:
            self.workshop.cancel(task)
            task.reservation.give()
            raise
        return self._file(task, self._result_of(task), last=True)

    async def new_job(self, request: Request) -> Response:
        task = await self._task(request)
        try:
            self.jobs.add(task)
        except FullError:
            task.reservation.give()
            raise
        self._count_when_ended(task)
        return JSONResponse(self._shown(task), 202, {"Location": f"/v1/jobs/{task.id}"})

    async def _task(self, request: Request) -> Task:
        """The upload and its options, checked. The queue is checked before the upload and again after it."""
        if self.workshop.is_full:
            raise FullError
        reservation = self.room.reserve()
        try:
            upload = await self.reader.read(request, reservation)
            return Task(upload.data, self._options_of(upload.words), upload.name, reservation)
        except BaseException:
            reservation.give()
            raise

    def _options_of(self, words: dict[str, str]) -> UpscaleOptions:
        try:
            return within_limits(self.questions.parse({"model": self.options.model, **words}), self.options)
        except SrganError as err:
            raise problem_of(err) from err

    async def _ended_or_left(self, task: Task, request: Request) -> None:
        """Wait until the task has ended, or until the client has disconnected."""
        ended, left = asyncio.ensure_future(task.ended()), asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait((ended, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            left.cancel()
        self._count(task)
        if not task.has_ended:
            raise ClientDisconnect

    def _count_when_ended(self, task: Task) -> None:
        async def wait() -> None:
            await task.ended()
            self._count(task)

        counting = asyncio.create_task(wait())
        self._counting.add(counting)
        counting.add_done_callback(self._counting.discard)

    def _count(self, task: Task) -> None:
        self.metrics.pictures[task.state if task.has_ended else "cancelled"] += 1
        if task.result is not None:
            self.metrics.took(task.result.seconds)
            self.metrics.megapixels += task.result.width * task.result.height / 1e6
        if task.error is not None and problem_of(task.error).status == 500:
            self.on_fault(task.error)

    def _result_of(self, task: Task) -> Result:
        """A job's result. Raises `ProblemError` if there is none."""
        if task.result is not None:
            return task.result
        task.reservation.give()
        raise ProblemError(409, "it was cancelled") if task.error is None else problem_of(task.error)

    def _file(self, task: Task, result: Result, *, last: bool) -> Response:
        """The result; with `last` its memory is given back once it is sent, or if the client has disconnected."""

        async def chunks() -> AsyncIterator[memoryview]:
            view = memoryview(result.data)
            for start in range(0, len(view), _CHUNK_BYTES):
                yield view[start : start + _CHUNK_BYTES]

        headers = {
            "Content-Length": str(len(result.data)),
            "Content-Disposition": disposition(_result_name(task, result)),
            "X-Srgan-Size": f"{result.width}x{result.height}",
            "X-Srgan-Model": _header(result.model),
            "X-Srgan-Why": _header(result.why),
            "X-Srgan-Notes": json.dumps(result.notes),
            "Server-Timing": f"wait;dur={_waited(task) * 1e3:.1f}, upscale;dur={result.seconds * 1e3:.1f}",
        }
        ended = task.reservation.give if last else lambda: None
        return FileResponse(chunks(), headers, result.mime, ended)

    # ----------------------------------------------------------------------------------------------------------- jobs

    def _known(self, request: Request) -> Task:
        task = self.jobs.get(request.path_params["id"])
        if task is None:
            raise ProblemError(404, "there is no such job, or it was removed")
        return task

    async def job(self, request: Request) -> Response:
        task = self._known(request)
        if request.method == "DELETE":
            self.jobs.forget(task)
            return Response(status_code=204)
        return JSONResponse(self._shown(task))

    async def events(self, request: Request) -> Response:
        task = self._known(request)
        pause_s = min(_HEARTBEAT_S, self.options.keep_s / 2)  # a job that is watched is kept

        async def stream() -> AsyncIterator[str]:
            told_end = False
            while not told_end:
                self.jobs.get(task.id)  # somebody is watching it
                told_end = task.has_ended  # before the event is sent: it may end meanwhile
                yield f"event: job\ndata: {json.dumps(self._shown(task))}\n\n"
                if not task.has_ended:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(task.changed(), pause_s)

        return StreamingResponse(stream(), 200, {"X-Accel-Buffering": "no"}, "text/event-stream")

    async def result(self, request: Request) -> Response:
        task = self._known(request)
        if not task.has_ended:
            raise ProblemError(409, "the job is not done yet")
        return self._file(task, self._result_of(task), last=False)

    async def compare(self, request: Request) -> Response:
        """The page of `srgan compare` for this job's pictures."""
        task = self._known(request)
        if task.result is None:
            raise ProblemError(409, "the job is not done, so there is nothing to compare")
        if not _is_comparable(task.result):
            raise ProblemError(413, "the result is too large to be shown on a page; download it, and use srgan compare")
        try:
            html = await run_in_threadpool(self._compared, task, task.result)
        except SrganError as err:
            raise problem_of(err) from err
        return HTMLResponse(html, headers={"Content-Security-Policy": page.VIEWER_POLICY})

    def _compared(self, task: Task, result: Result) -> str:
        with self._comparing:  # one at a time, because of their memory
            return page.comparison(task.data, result)

    def _shown(self, task: Task) -> dict[str, object]:
        here = f"/v1/jobs/{task.id}"
        links = {"self": here, "events": f"{here}/events"}
        shown: dict[str, object] = {"id": task.id, "name": task.name, "state": task.state,
                                    "fraction": round(task.fraction, 4)}  # fmt: skip
        if not task.has_ended:
            shown["position"] = self.workshop.position(task)
        if (result := task.result) is not None:
            links |= {"result": f"{here}/result"}
            links |= {"compare": f"{here}/compare"} if _is_comparable(result) else {}
            shown["result"] = {
                "name": _result_name(task, result), "type": result.mime, "bytes": len(result.data),
                "width": result.width, "height": result.height, "model": result.model, "why": result.why,
                "seconds": round(result.seconds, 3), "notes": list(result.notes),
            }  # fmt: skip
        if task.error is not None:
            shown["problem"] = problem_of(task.error).as_dict()
        return {**shown, "links": links}

    # ------------------------------------------------------------------------------------------------ what it is asked

    async def models(self, _request: Request) -> Response:
        return JSONResponse({"default": self.options.model, "models": list(_models())})

    async def openapi(self, _request: Request) -> Response:
        return JSONResponse(document(self.questions, self.options))

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "queue": self.workshop.length})

    async def metrics_page(self, _request: Request) -> Response:
        text = self.metrics.text(
            queue_length=self.workshop.length, queue_limit=self.options.queue, jobs=len(self.jobs),
            held_bytes=self.room.taken,
        )  # fmt: skip
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def page(self, _request: Request) -> Response:
        html = page.main_page(list(_models()), self.questions, self.options)
        return HTMLResponse(html, headers={"Content-Security-Policy": page.PAGE_POLICY})

    async def style(self, _request: Request) -> Response:
        return Response(page.packaged("page.css"), media_type="text/css")

    async def script(self, _request: Request) -> Response:
        return Response(page.packaged("page.js"), media_type="text/javascript")

    async def login(self, request: Request) -> Response:
        """A login form for the token, which is then stored in a cookie that scripts and other sites cannot use."""
        headers = {"Content-Security-Policy": page.PAGE_POLICY}
        if request.method == "GET":
            return HTMLResponse(page.login_page(wrong=False), headers=headers)
        given = await self._typed_token(request)
        if not is_token(self.options, given):
            return HTMLResponse(page.login_page(wrong=True), 401, headers)
        answer = Response(status_code=303, headers={"Location": "/"})
        answer.set_cookie(COOKIE, given, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer

    async def _typed_token(self, request: Request) -> str:
        from urllib.parse import parse_qs

        body = b""
        async for chunk in self.reader.chunks(request, None):
            body += chunk
            if len(body) > 4096:
                raise ProblemError(413, "the token is wrong")
        return parse_qs(body.decode("latin-1")).get("token", [""])[0].strip()


async def _left(request: Request) -> None:
    """Wait until the client has disconnected. After a request's body has been read, no other message can follow."""
    while True:
        if (await request.receive())["type"] == "http.disconnect":
            return


def _models() -> Iterator[dict[str, object]]:
    known: list[registry.Entry | library.OwnModel] = [*registry.entries(), *library.own_models()]
    for model in known:
        own = isinstance(model, library.OwnModel)
        yield {"name": model.name, "family": model.family, "scale": model.scale, "description": model.description,
               "licence": model.licence, "has_noise": registry.draws_from_noise(model.path), "own": own}  # fmt: skip


def _result_name(task: Task, result: Result) -> str:
    """Named as by the command: `cat_x4.png`."""
    stem = task.name.rpartition(".")[0] or task.name
    size = task.options.size
    return f"{stem}_x{size.scale:g}{result.suffix}" if size.scale is not None else f"{stem}_large{result.suffix}"


def _is_comparable(result: Result) -> bool:
    return result.width * result.height <= _PREVIEW_PIXELS


def _waited(task: Task) -> float:
    return 0.0 if task.began is None else task.began - task.arrived


def _header(text: str) -> str:
    return text.encode("ascii", "replace").decode()
