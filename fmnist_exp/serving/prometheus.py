"""The counters of the server, in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counters:
    """The counters of one server."""

    def __init__(self) -> None:
        self.collectors = collectors = CollectorRegistry()
        ProcessCollector(registry=collectors)
        self.requests = Counter(
            "fmnist_requests", "Requests to /invocations by HTTP status", ["status"], registry=collectors
        )
        self.seconds = Histogram(
            "fmnist_request_seconds", "From headers to answer", buckets=SECONDS, registry=collectors
        )
        self.images = Counter("fmnist_images", "Images answered by predicted class", ["name"], registry=collectors)
        self.at_work = Gauge("fmnist_requests_at_work", "Requests being answered", registry=collectors)
        self.model = Gauge("fmnist_model_ready", "1 once the model is warm", ["model"], registry=collectors)

    def text(self) -> bytes:
        """Return all of them as the body of an answer."""
        return generate_latest(self.collectors)
