"""What this process carries at this moment, for Prometheus: asked for when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from chat.lifecycle.supervisor import supervisor
from chat.limits.admission import admission
from chat.limits.readers import readers, scanners
from chat.monitoring.health import readiness
from modelhost.errors import ModelHostError
from modelhost.host import host


class Gauges(Collector):
    """Nothing here waits for a row or the model."""

    def collect(self) -> Iterator[Metric]:
        """Each with its value now."""
        queued, streaming = supervisor.queued_and_streaming()
        inside = admission.total
        for name, what, value in (
            ("ready", "1 when a token can be made, as /readyz says.", readiness().status == 200),
            ("responses_queued", "Responses without a first token yet.", queued),
            ("responses_streaming", "Responses whose text is growing.", streaming),
            ("prompt_tokens_inside", "Tokens of their prompts.", inside.tokens),
            ("streams_open", "Clients that wait for a response.", readers.total),
            ("scans_open", "Exports and searches under way.", scanners.total),
        ):
            yield GaugeMetricFamily(f"llmsite_{name}", what, value=float(value))
        yield from _of_the_model()

    def describe(self) -> Iterator[Metric]:
        """None, so that being registered asks for nothing yet."""
        yield from ()


def _of_the_model() -> Iterator[Metric]:
    try:
        engine = host.engine()
    except ModelHostError:
        return  # it is loading, or failed
    card = engine.card
    yield InfoMetricFamily(
        "llmsite_model",
        "What is served.",
        value={"name": card.name, "revision": card.revision, "adapter": card.adapter},
    )
    yield CounterMetricFamily(
        "llmsite_engine_restarts",
        "Times that the engine's thread died and was started again.",
        value=engine.restarts,
    )
