package control

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"sync"
)

// flushEvery is how much of a listing is gathered before it is sent, in bytes.
const flushEvery = 32 << 10

// line is one line of a stream. Exactly one field is set.
type line[T any] struct {
	Value *T         `json:"value"`
	End   *streamEnd `json:"end"`
	Error *Error     `json:"error"`
}

type streamEnd struct {
	Count int64 `json:"count"` // of the value lines
}

func (s *Server) points(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	last, err := number(q, "last")
	if err != nil {
		return err
	}
	if last > MaxLast {
		return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("%d points are more than the newest %d", last, MaxLast), Next: "leave the number out, and take all"}
	}
	return sendStream(w, s.cfg.Backend.Points(r.Context(), PointsRequest{Item: q.Get("item"), Last: last}), flushEvery)
}

func (s *Server) entries(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	req := EntriesRequest{
		Item: r.PathValue("item"), Point: r.PathValue("point"),
		Path: q.Get("path"), Recursive: q.Get("recursive") == "true",
	}
	return sendStream(w, s.cfg.Backend.Entries(r.Context(), req), flushEvery)
}

func (s *Server) diff(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	req := DiffRequest{
		Item: r.PathValue("item"), From: r.PathValue("point"),
		To: q.Get("to"), Path: q.Get("path"),
	}
	return sendStream(w, s.cfg.Backend.Diff(r.Context(), req), flushEvery)
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	id, err := parseID(r.PathValue("id"))
	if err != nil {
		return err
	}
	var after uint64
	if t := r.URL.Query().Get("after"); t != "" {
		if after, err = strconv.ParseUint(t, 10, 64); err != nil {
			return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("after %q is not a number", t)}
		}
	}
	return sendStream(w, s.cfg.Backend.Events(r.Context(), id, after), 0)
}

// sendStream sends seq line by line, flushing when more than flush bytes are
// gathered. An error before the first value is returned, so that it becomes an
// ordinary reply; a later one is the stream's last line.
func sendStream[T any](w http.ResponseWriter, seq iter.Seq2[T, error], flush int) error {
	ctl := http.NewResponseController(w)
	buf := bufio.NewWriterSize(w, flushEvery)
	var count int64
	pending := 0
	put := func(name string, v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode stream: %w", err)
		}
		fmt.Fprintf(buf, "{%q:", name)
		buf.Write(b)
		_, err = buf.WriteString("}\n")
		if pending += len(b); err == nil && pending > flush {
			pending = 0
			err = errors.Join(buf.Flush(), ctl.Flush())
		}
		return err
	}
	w.Header().Set("Content-Type", contentNDJSON)
	for v, err := range seq {
		if err != nil && count == 0 {
			return err
		}
		if err != nil {
			put("error", AsError(err)) //nolint:errcheck // the caller may be gone
			return buf.Flush()
		}
		if err := put("value", v); err != nil {
			return err // the caller is gone, or sees a torn stream
		}
		count++
	}
	put("end", streamEnd{Count: count}) //nolint:errcheck // the caller may be gone
	return buf.Flush()
}

// readStream yields the values of a stream. A stream without its end is torn.
func readStream[T any](r io.Reader, yield func(T, error) bool) {
	var none T
	var count int64
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	for sc.Scan() {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		var l line[T]
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			// A line cut short is what a broken connection leaves.
			break
		}
		switch {
		case l.Error != nil:
			yield(none, l.Error)
			return
		case l.End != nil && l.End.Count != count:
			yield(none, torn(fmt.Errorf("%d lines of %d", count, l.End.Count)))
			return
		case l.End != nil:
			return
		case l.Value == nil:
			yield(none, &Error{Code: CodeProtocol, Message: "the agent's answer has an unknown line", Next: nextVersion})
			return
		}
		count++
		if !yield(*l.Value, nil) {
			return
		}
	}
	err := sc.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	yield(none, torn(err))
}

// torn is the fault of a stream that ended before its end.
func torn(err error) *Error {
	return &Error{
		Code: CodeTorn, Message: fmt.Sprintf("the connection broke before the end: %v", err),
		Next: "see whether the agent is running: coffer status",
	}
}

func (s *Server) content(w http.ResponseWriter, r *http.Request) error {
	req := ContentRequest{
		Item: r.PathValue("item"), Point: r.PathValue("point"), Path: r.URL.Query().Get("path"),
	}
	out := &lengthWriter{w: w}
	if err := s.cfg.Backend.Content(r.Context(), req, out); err != nil {
		if !out.begun {
			return err
		}
		b, jsonErr := json.Marshal(AsError(err))
		if jsonErr != nil {
			return jsonErr
		}
		w.Header().Set(trailerError, base64.StdEncoding.EncodeToString(b))
		return nil
	}
	out.begin()
	w.Header().Set(trailerLength, strconv.FormatInt(out.n, 10))
	return nil
}

// lengthWriter begins a reply with its first byte and counts.
type lengthWriter struct {
	w     http.ResponseWriter
	begun bool
	n     int64
}

func (l *lengthWriter) begin() {
	if l.begun {
		return
	}
	l.begun = true
	l.w.Header().Set("Trailer", trailerLength+", "+trailerError)
	l.w.Header().Set("Content-Type", contentOctets)
	l.w.WriteHeader(http.StatusOK)
}

func (l *lengthWriter) Write(p []byte) (int, error) {
	l.begin()
	n, err := l.w.Write(p)
	l.n += int64(n)
	return n, err
}

func (s *Server) input(w http.ResponseWriter, r *http.Request) error {
	id, err := parseID(r.PathValue("id"))
	if err != nil {
		return err
	}
	relax(w) // the data comes when it comes
	if err := s.cfg.Backend.Input(r.Context(), id, &markedReader{body: r.Body, trailer: func() http.Header { return r.Trailer }}); err != nil {
		return err
	}
	s.reply(w, http.StatusOK, struct{}{})
	return nil
}

// markedReader reads a body whose length is in a trailer, and ends with io.EOF
// only if that is there and right. After any other end it keeps its error.
type markedReader struct {
	body    io.Reader
	trailer func() http.Header
	n       int64
	err     error
}

func (m *markedReader) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	n, err := m.body.Read(p)
	m.n += int64(n)
	if err != nil {
		m.err = m.end(err)
	}
	return n, m.err
}

// end judges how the body ended.
func (m *markedReader) end(err error) error {
	if err != io.EOF { //nolint:errorlint // Readers return it bare
		return torn(err)
	}
	t := m.trailer()
	if text := t.Get(trailerError); text != "" {
		var e Error
		b, err := base64.StdEncoding.DecodeString(text)
		if err == nil {
			err = json.Unmarshal(b, &e)
		}
		if err != nil {
			return torn(err)
		}
		return &e
	}
	want, err := strconv.ParseInt(t.Get(trailerLength), 10, 64)
	if err != nil {
		return torn(io.ErrUnexpectedEOF)
	}
	if want != m.n {
		return torn(fmt.Errorf("%d bytes of %d", m.n, want))
	}
	return io.EOF
}

// markingReader sends r as a body that a markedReader reads: when r has ended, its
// length goes into the trailer. If r fails, the transport breaks the connection,
// and the other end sees a torn body.
type markingReader struct {
	r       io.Reader
	trailer http.Header
	n       int64

	mu  sync.Mutex
	err error // what r failed with
}

func (m *markingReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	switch {
	case err == io.EOF: //nolint:errorlint // Readers return it bare
		m.trailer.Set(trailerLength, strconv.FormatInt(m.n, 10))
	case err != nil:
		m.mu.Lock()
		m.err = err
		m.mu.Unlock()
	}
	return n, err
}

// failure returns what the reader failed with. The transport may still be reading.
func (m *markingReader) failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}
