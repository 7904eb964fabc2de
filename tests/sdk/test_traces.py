"""What a collector is sent, read as OpenTelemetry's own messages: an unknown field or a wrong type is an error."""

import base64
import http.server
import json
import os
import threading
import urllib.request

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import harness


class Collector(http.server.BaseHTTPRequestHandler):
    told = []
    arrived = threading.Semaphore(0)

    def do_POST(self):
        assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/json")
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        self.arrived.release()

    def log_message(self, *_):
        pass


def with_base64(told):
    """OTLP's JSON has ids in hexadecimal digits, where protobuf's own has base64."""
    if isinstance(told, list):
        return [with_base64(one) for one in told]
    if not isinstance(told, dict):
        return told
    ids = ("traceId", "spanId", "parentSpanId")
    as_bytes = lambda text: base64.b64encode(bytes.fromhex(text)).decode()
    return {name: as_bytes(value) if name in ids else with_base64(value) for name, value in told.items()}


@pytest.mark.skipif("SDK_DIRECT" in os.environ, reason="there is no gateway to tell of anything")
def test_spans_are_messages_of_the_protocol(provider):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    gateway = harness.Gateway(provider.base, LARDER_TRACE__ENDPOINT=endpoint, LARDER_TRACE__SAMPLE="1.0")
    try:
        urllib.request.urlopen(gateway.base + "/openai/v1/models", timeout=harness.PATIENCE).read()
        assert Collector.arrived.acquire(timeout=harness.PATIENCE)
    finally:
        gateway.stop()
        server.shutdown()
    message = json_format.ParseDict(with_base64(Collector.told[0]), ExportTraceServiceRequest())
    spans = [span for one in message.resource_spans for scope in one.scope_spans for span in scope.spans]
    kinds = {span.name: span.kind for span in spans}
    assert kinds["GET"] == Span.SPAN_KIND_SERVER and kinds["lookup"] == Span.SPAN_KIND_INTERNAL
    assert kinds["origin"] == Span.SPAN_KIND_CLIENT
    assert {(len(span.trace_id), len(span.span_id)) for span in spans} == {(16, 8)}
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
