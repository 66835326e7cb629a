"""Reads OpenMetrics text with Prometheus' own parser, which is strict, and writes samples as JSON: read_metrics.py < TEXT"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

samples = [
    {"name": sample.name, "labels": sample.labels, "value": sample.value, "type": family.type}
    for family in text_string_to_metric_families(sys.stdin.read())
    for sample in family.samples
]
json.dump(samples, sys.stdout)
