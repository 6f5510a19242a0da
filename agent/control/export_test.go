package control

import (
	"io"
	"net/http"
	"reflect"
	"strings"
)

// Verb is a route, as tests compare it with its description.
type Verb struct {
	Method, Path string
	Role         Role
	In, Out      reflect.Type
	Raw          bool // takes a body that is not JSON
	Status       int
	Kind         string
}

// Verbs returns all routes.
func (s *Server) Verbs() []Verb {
	var out []Verb
	for _, r := range s.routes() {
		method, path, _ := strings.Cut(r.pattern, " ")
		out = append(out, Verb{Method: method, Path: path, Role: r.need, In: r.in, Out: r.out, Raw: r.raw, Status: r.status, Kind: r.kind})
	}
	return out
}

// ReadStream is readStream, for fuzzing.
func ReadStream[T any](r *strings.Reader, yield func(T, error) bool) { readStream(r, yield) }

// ReadMarked is a markedReader, for fuzzing.
func ReadMarked(body io.Reader, trailer http.Header) io.Reader {
	return &markedReader{body: body, trailer: func() http.Header { return trailer }}
}
