// Package control is how the agent is told what to do: HTTP with JSON on a local
// socket (a named pipe on Windows), with its wire types, Server and Client.
//
// The Backend interfaces are the protocol: the Server calls the agent through
// them, and the Client implements them, so that a verb of the CLI reads like a
// call into the agent.
//
// On the wire:
//   - Every path begins with /v1/. Fields are snake_case, times RFC 3339, sizes
//     bytes. Within v1 fields are only added.
//   - A request body is one JSON object; unknown fields are refused.
//   - A fault is {"error":{"code":...,"message":...,"next":...}}.
//   - Listings of unknown length and job events are NDJSON: {"value":...} lines,
//     then {"end":{"count":N}} or {"error":{...}}. A stream without its last line
//     is torn.
//   - Raw bytes (the input of a backup, the output of cat) are a chunked body with
//     its length in the trailer Coffer-Length. A body without it is torn, so a
//     peer that dies in the middle never looks like the end of the data.
//
// Invariants:
//   - A caller is known by the credentials that the kernel gives for its end of
//     the socket, never by what it says.
//   - Nothing that a browser could be made to send is answered: requests with
//     Origin, Referer or a foreign Host are refused.
//   - Memory is bounded by the limits below, however long a stream is.
//   - No caller keeps another out: each has a share of the connections and of the
//     requests, and none is waited for without end (Limits of package quota, Patience).
//
// openapi.yaml describes all of it for other programs.
package control

import "time"

const (
	// maxBody is the size of the largest JSON request, in bytes. The largest
	// honest one is a configuration to check: 4 MiB, in JSON.
	maxBody = 8 << 20
	// maxHeader leaves room for a path of any length that Linux can make within a
	// query.
	maxHeader = 256 << 10
	// maxReply is the size of the largest JSON reply that a Client reads, in bytes.
	maxReply = 64 << 20
	// maxLine is the length of the longest line of a stream that a Client reads.
	maxLine = 8 << 20

	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	drainTimeout  = 5 * time.Second // for replies under way when the server stops
)

const (
	headerVersion  = "Coffer-Version"
	trailerLength  = "Coffer-Length"
	trailerError   = "Coffer-Error"
	contentJSON    = "application/json"
	contentNDJSON  = "application/x-ndjson"
	contentOctets  = "application/octet-stream"
	contentYAML    = "application/yaml"
	socketHostname = "coffer" // what the Client sends as Host; "localhost" is for curl
)
