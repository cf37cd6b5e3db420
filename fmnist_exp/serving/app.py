"""The server's ASGI application: the routes of MLflow's scoring server, the page to try the model, and counters.

MLflow's own application is not used: it would add routes that nobody needs, and seconds to the start. A test compares
the answers of both.
"""

import asyncio
import functools
import importlib.metadata
import json
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from fmnist_exp.serving import page, protocol
from fmnist_exp.serving.asgi import ASGI, Headers, Receive, Scope, Send, respond
from fmnist_exp.serving.hosts import Hosts
from fmnist_exp.serving.limits import Bodies, ClientGoneError, Limits, RequestSlots
from fmnist_exp.serving.model import ServedModel
from fmnist_exp.serving.protocol import JSON, RefusedError

PROMETHEUS: Headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
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
        self.connections = Gauge("fmnist_connections", "Open connections", registry=own)


class Application:
    """The ASGI application. It answers requests for predictions with status 503 until `start` gives it a model."""

    def __init__(self, limits: Limits, hosts: Hosts) -> None:
        self.limits = limits
        self.hosts = hosts
        self.counters = Counters()
        self.slots = RequestSlots(limits.requests)
        self.bodies = Bodies(limits)
        self.model: ServedModel | None = None
        # one request at a time is parsed and computed: ONNX Runtime uses all cores for it, and memory stays bounded
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self.routes: dict[str, tuple[str, ASGI]] = {
            "/": ("GET", self._page),
            "/invocations": ("POST", self._invocations),
            "/health": ("GET", self._health),
            "/ping": ("GET", self._ping),
            "/version": ("GET", self._version),
            "/metrics": ("GET", self._metrics),
        }

    def start(self, model: ServedModel) -> None:
        """Answer with this loaded and warm model from now on."""
        self.counters.model.labels(model.name).set(1)
        self.model = model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            self.hosts.check(scope)
            await self._route(scope)(scope, receive, send)
        except RefusedError as refused:
            await respond(send, refused.status, refused.body(), refused.headers)
        except ClientGoneError:
            pass

    def _route(self, scope: Scope) -> ASGI:
        if scope["path"] not in self.routes:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"There is nothing here; the server has {', '.join(self.routes)}.")
        method, route = self.routes[scope["path"]]
        if scope["method"] != method:
            sentence = f"This address takes {method} requests only."
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, sentence, [(b"allow", method.encode())])
        return route

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return the page to try the model."""
        await respond(send, HTTPStatus.OK, page.html(), page.HEADERS, page.policy())

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return counters of requests and images in the text format of Prometheus."""
        await respond(send, HTTPStatus.OK, generate_latest(self.counters.collectors), PROMETHEUS)

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return status 200 once the model is loaded, and 503 before."""
        body = json.dumps({"status": "ok", "model": self._ready().name}).encode()
        await respond(send, HTTPStatus.OK, body, JSON)

    async def _ping(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return status 200 once the model is loaded, as MLflow's server does, and 503 before."""
        self._ready()
        await respond(send, HTTPStatus.OK, b"\n", JSON)

    async def _version(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Return the version of MLflow, whose protocol the server speaks."""
        await respond(send, HTTPStatus.OK, _mlflow_version(), JSON)

    def _ready(self) -> ServedModel:
        if self.model is None:
            sentence = "The model is being loaded; try again in a second."
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, sentence, [(b"retry-after", b"1")])
        return self.model

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
        model = self._ready()
        protocol.check_headers(headers)
        request = await self.bodies.read(receive, headers)
        try:
            with self.slots.hold():
                self.counters.at_work.set(self.slots.taken)
                answer, names = await self._compute(model, request)
        finally:
            self.bodies.release(request)
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
            log.exception("a request failed: %s: %s", type(error).__name__, error)
            raise RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its log says why.") from error


@functools.cache
def _mlflow_version() -> bytes:
    return importlib.metadata.version("mlflow").encode()
