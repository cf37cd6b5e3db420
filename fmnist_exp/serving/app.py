"""MLflow's scoring server application with what it lacks around it.

`/ping` and `/version`, and the answer to any unknown path or method, are MLflow's own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from fmnist_exp.serving import metrics, page, protocol
from fmnist_exp.serving.limits import ClientGoneError, Limits, Message, Places, Receive, read_body
from fmnist_exp.serving.model import ServedModel
from fmnist_exp.serving.protocol import RefusedError

Scope = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
LOADING = RefusedError(
    HTTPStatus.SERVICE_UNAVAILABLE, "The model is being loaded; try again in a second.", retry_after=1
)
log = logging.getLogger(__name__)


class Application:
    """The ASGI application. It answers before there is a model: `start` gives it one."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.metrics = metrics.Metrics()
        self.places = Places(limits.places)
        self.model: ServedModel | None = None
        self._mlflow: ASGI | None = None
        # one request is parsed and computed at a time: ONNX Runtime takes all cores for it, and memory stays bounded
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._routes: dict[tuple[str, str], Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            ("POST", "/invocations"): self._invocations,
            ("GET", "/"): self._page,
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
        }

    def start(self, model: ServedModel) -> None:
        """Take a warm model and answer with it from now on."""
        from mlflow.pyfunc import scoring_server

        self._mlflow = scoring_server.init(model)  # type: ignore[arg-type]  # it asks for metadata and predict only
        self.metrics.model.labels(model.name).set(1)
        self.model = model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        route = self._routes.get((scope["method"], scope["path"]), self._other)
        try:
            await route(scope, receive, send)
        except RefusedError as refused:
            await _refuse(send, refused)
        except ClientGoneError:
            pass

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._mlflow is None:
            raise LOADING
        await self._mlflow(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, HTTPStatus.OK, page.html(), page.HEADERS)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, HTTPStatus.OK, self.metrics.text(), [(b"content-type", metrics.TYPE.encode())])

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.model is None:
            raise LOADING
        await respond(send, HTTPStatus.OK, json.dumps({"status": "ok", "model": self.model.name}).encode(), JSON)

    async def _invocations(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        status = 499  # the client left; no answer was sent
        try:
            body = await self._answer(dict(scope["headers"]), receive)
            await respond(send, HTTPStatus.OK, body, JSON)
            status = int(HTTPStatus.OK)
        except RefusedError as refused:
            status = int(refused.status)
            raise
        finally:
            self.metrics.requests.labels(str(status)).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)
            self.metrics.at_work.set(self.places.taken)

    async def _answer(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        if self.model is None:
            raise LOADING
        with self.places.one():
            self.metrics.at_work.set(self.places.taken)
            protocol.check_headers(headers)
            request = await read_body(receive, headers, self.limits)
            answer, names = await self._compute(self.model, request)
        for name in names:
            self.metrics.images.labels(name).inc()
        return answer

    async def _compute(self, model: ServedModel, request: bytes) -> tuple[bytes, list[str]]:
        work = asyncio.get_running_loop().run_in_executor(self._worker, model.answer, request, self.limits.images)
        try:
            return await asyncio.wait_for(work, self.limits.answer)
        except TimeoutError as error:
            sentence = f"No answer within {self.limits.answer:g} seconds; send fewer images in one request."
            raise RefusedError(HTTPStatus.GATEWAY_TIMEOUT, sentence) from error
        except RefusedError:
            raise
        except Exception as error:
            log.exception("a request failed")
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says why.") from error


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": int(status), "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, refused: RefusedError) -> None:
    headers = list(JSON)
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(refused.retry_after).encode()))
    await respond(send, refused.status, refused.body(), headers)
