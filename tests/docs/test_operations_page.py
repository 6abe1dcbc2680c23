"""``docs/guides/operations.md`` lists the metrics as the gateway prints them, and a log line as it writes one."""

import json
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.gateway.access_log import AccessLine
from bridge.gateway.http_counts import ProcessFacts, RequestCount
from bridge.gateway.metric_families import families
from bridge.measurements import EventGroup, measure
from bridge.settings import Settings
from tests.docs.pages import ROOT, plain, read_page
from tests.docs.running import gateway_client

PAGE: Final = read_page(ROOT / "docs/guides/operations.md")
ROWS: Final = {plain(row["metric"]): row for row in PAGE.table("metric", "type", "labels", "meaning").rows}


def described(metric: Metric) -> tuple[str, str, set[str]]:
    """Name as in the text format, type, and labels without that of histograms."""
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    return name, metric.type, {label for sample in metric.samples for label in sample.labels} - {"le"}


async def test_table_lists_exactly_the_metrics_with_type_and_labels(
    settings: Settings, redis: AegisRedis, catalog: Catalog
) -> None:
    found = await measure(redis, catalog, redis.scripts)
    found.events.groups.append(EventGroup(name="one", pending=1, lag=1))
    facts = ProcessFacts(number=1, requests=[RequestCount("GET", "/", 200, [0] * 16)], reader_lag_s=0.1)
    every = {name: (kind, labels) for name, kind, labels in map(described, families(found, [facts]))}
    every["aegis_build_info"] = ("gauge", every.pop("aegis_build")[1])
    told = {name: (row["type"], set(filter(None, plain(row["labels"]).split(", ")))) for name, row in ROWS.items()}
    assert told == every


async def test_gateway_prints_no_metric_that_is_not_in_the_table(settings: Settings, catalog: Catalog) -> None:
    async with gateway_client(settings, catalog) as gateway:
        printed = [*text_string_to_metric_families((await gateway.get("/metrics")).text)]
    names = {described(metric)[0] for metric in printed}
    assert names <= set(ROWS)
    assert len(names) > 20


def test_example_of_a_line_has_the_fields_of_a_line() -> None:
    (block,) = [block for block in PAGE.blocks if block.language == "json"]
    assert list(json.loads(block.text)) == list(AccessLine.__struct_fields__)
