"""What Prometheus may ask: requests, pictures, batches, the queue, and the worker's deaths."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PICTURES = (1, 2, 4, 8, 12, 16, 24, 32, 64)
MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "t2i_requests", "Requests that were answered.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "t2i_request_seconds",
            "Seconds from a request to the end of its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._pictures = Counter("t2i_pictures", "Pictures that were made.", ("model",), registry=self._registry)
        self._batch_pictures = Histogram(
            "t2i_batch_pictures", "Pictures of a batch.", buckets=PICTURES, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "t2i_batch_seconds", "Seconds that the worker took for a batch.", buckets=SECONDS, registry=self._registry
        )
        self.deaths = Counter(
            "t2i_worker_deaths", "Workers that died or were killed and were replaced.", registry=self._registry
        )
        self._waiting = Gauge(
            "t2i_waiting_pictures", "Pictures that were accepted and are not made yet.", registry=self._registry
        )
        self._up = Gauge(
            "t2i_worker_up", "1 while the worker is there, 0 while it is started.", registry=self._registry
        )

    def watch(self, waiting: Callable[[], float], is_up: Callable[[], float]) -> None:
        """Ask these two whenever Prometheus asks: how many pictures wait, and whether the worker is there."""
        self._waiting.set_function(waiting)
        self._up.set_function(is_up)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, model: str, pictures: int, seconds: float) -> None:
        """Count a batch that was made."""
        self._pictures.labels(model).inc(pictures)
        self._batch_pictures.observe(pictures)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
