"""The server's ASGI application: our `/invocations`, page, health and counters around MLflow's scoring server.

MLflow's own application answers `/ping`, `/version` and every unknown path or method.
"""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from fmnist_exp.serving import page, protocol
from fmnist_exp.serving.asgi import ASGI, Headers, Receive, Scope, Send, respond
from fmnist_exp.serving.limits import ClientGoneError, Limits, RequestSlots, read_body
from fmnist_exp.serving.model import ServedModel
from fmnist_exp.serving.protocol import RefusedError

JSON: Headers = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
PROMETHEUS: Headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LOADING = RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "The model is being loaded; try again in a second.", 1)
log = logging.getLogger(__name__)


class Counters:
    """The counters of one server, in the format of Prometheus."""

    def __init__(self) -> None:
        self.collectors = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("fmnist_requests", "Requests to /invocations by HTTP status", ["status"], registry=own)
        self.seconds = Histogram("fmnist_request_seconds", "From headers to answer", buckets=SECONDS, registry=own)
        self.images = Counter("fmnist_images", "Images answered by predicted class", ["name"], registry=own)
        self.at_work = Gauge("fmnist_requests_at_work", "Requests being answered", registry=own)
        self.model = Gauge("fmnist_model_ready", "1 once the model is warm", ["model"], registry=own)


class Application:
    """The ASGI application. It answers requests for predictions with status 503 until `start` gives it a model."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counters = Counters()
        self.slots = RequestSlots(limits.requests)
        self.model: ServedModel | None = None
        self._mlflow: ASGI | None = None
        # one request at a time is parsed and computed: ONNX Runtime uses all cores for it, and memory stays bounded
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self.routes: dict[tuple[str, str], ASGI] = {
            ("POST", "/invocations"): self._invocations,
            ("GET", "/"): self._page,
            ("GET", "/health"): self._health,
            ("GET", "/metrics"): self._metrics,
        }

    def start(self, model: ServedModel) -> None:
        """Answer with this loaded and warm model from now on."""
        from mlflow.pyfunc import scoring_server  # late: the server listens before MLflow is imported

        self._mlflow = scoring_server.init(model)  # type: ignore[arg-type]  # it asks for metadata and predict only
        self.counters.model.labels(model.name).set(1)
        self.model = model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        route = self.routes.get((scope["method"], scope["path"]), self._other)
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
        """Return the page to try the model."""
        await respond(send, HTTPStatus.OK, page.html(), page.HEADERS)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return counters of requests and images in the text format of Prometheus."""
        await respond(send, HTTPStatus.OK, generate_latest(self.counters.collectors), PROMETHEUS)

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return status 200 once the model is loaded, and 503 before."""
        if self.model is None:
            raise LOADING
        await respond(send, HTTPStatus.OK, json.dumps({"status": "ok", "model": self.model.name}).encode(), JSON)

    async def _invocations(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return one record per image: label, name, probability, p0 … p9. The images are `inputs` or `instances`."""
        start = time.perf_counter()
        status = 499  # the client has gone; no answer was sent
        try:
            body = await self._answer(dict(scope["headers"]), receive)
            await respond(send, HTTPStatus.OK, body, JSON)
            status = int(HTTPStatus.OK)
        except RefusedError as refused:
            status = int(refused.status)
            raise
        finally:
            self.counters.requests.labels(str(status)).inc()
            self.counters.seconds.observe(time.perf_counter() - start)
            self.counters.at_work.set(self.slots.taken)

    async def _answer(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        if self.model is None:
            raise LOADING
        with self.slots.hold():
            self.counters.at_work.set(self.slots.taken)
            protocol.check_headers(headers)
            request = await read_body(receive, headers, self.limits)
            answer, names = await self._compute(self.model, request)
        for name in names:
            self.counters.images.labels(name).inc()
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
        except Exception as error:  # no bug of ours may show a client more than one sentence
            log.exception("a request failed")
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says why.") from error


async def _refuse(send: Send, refused: RefusedError) -> None:
    wait = [] if refused.retry_after is None else [(b"retry-after", str(refused.retry_after).encode())]
    await respond(send, refused.status, refused.body(), [*JSON, *wait])
