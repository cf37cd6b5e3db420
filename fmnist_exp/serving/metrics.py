"""What the server counts, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "fmnist_requests", "Requests to /invocations by HTTP status", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "fmnist_request_seconds", "From headers to answer", buckets=SECONDS, registry=self.registry
        )
        self.images = Counter("fmnist_images", "Images answered by predicted class", ["name"], registry=self.registry)
        self.at_work = Gauge("fmnist_requests_at_work", "Requests being answered", registry=self.registry)
        self.model = Gauge("fmnist_model_ready", "1 once the model is warm", ["model"], registry=self.registry)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
