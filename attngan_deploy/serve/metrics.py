"""What Prometheus may ask: requests, pictures, batches, the queue, and the worker's deaths."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PICTURES = (1, 2, 4, 8, 12, 16, 24, 32, 64)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "t2i_requests", "Requests that were answered.", ("path", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "t2i_request_seconds",
            "Seconds from a request to the end of its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._pictures = Counter("t2i_pictures", "Pictures that were made.", ("model",), registry=self.registry)
        self._batch_pictures = Histogram(
            "t2i_batch_pictures", "Pictures of a batch.", buckets=PICTURES, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "t2i_batch_seconds", "Seconds that the worker took for a batch.", buckets=SECONDS, registry=self.registry
        )
        self.deaths = Counter(
            "t2i_worker_deaths", "Workers that died or were killed and were replaced.", registry=self.registry
        )
        self.waiting = Gauge(
            "t2i_waiting_pictures", "Pictures that were accepted and are not made yet.", registry=self.registry
        )
        self.up = Gauge(
            "t2i_worker_up", "Workers that are there; 0 while the only one is started.", registry=self.registry
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, model: str, pictures: int, seconds: float) -> None:
        self._pictures.labels(model).inc(pictures)
        self._batch_pictures.observe(pictures)
        self._batch_seconds.observe(seconds)
