# A cache in memory, for comparison.
vcl 4.1;
import xkey;

backend origin {
    .host = "@host@";
    .port = "@origin_port@";
}

acl here {
    "127.0.0.1";
}

sub vcl_recv {
    if (req.method == "PURGE" && client.ip ~ here) {
        return (synth(200, "" + xkey.purge(req.http.xkey)));
    }
    # As is recommended for event streams: one thread for each instead of two.
    if (req.url ~ "^/sse/") {
        return (pipe);
    }
}

sub vcl_backend_response {
    # As the built-in rule, but for what has no lifetime and a validator: that is kept to be revalidated, for which it
    # needs a lifetime above nothing.
    if (beresp.http.Cache-Control ~ "max-age=0" && beresp.http.ETag) {
        set beresp.ttl = 0.01s * 0.001;
        set beresp.grace = 0s;
        set beresp.keep = 1h;
        return (deliver);
    }
}
